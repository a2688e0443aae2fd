"""Comparisons of models on the same images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.bootstrap import Statistic, resamples, weighted_statistic
from imgcls.statistics.intervals import Interval
from imgcls.statistics.weighted import Floats, Labels

POWER = 0.8
"""Probability with which the number of images that :func:`images_needed` returns tells two models apart."""


class Difference(NamedTuple):
    """A difference of two scores.

    Args:
        value: The first minus the second; of several seeds, of their means.
        interval: Its confidence interval.
        p_value: Two-sided, of no difference.
        image_variance: Its variance by the choice of the images.
        seed_variance: Its variance by the choice of the seeds; 0 if each side has one.
    """

    value: float
    interval: Interval
    p_value: float
    image_variance: float
    seed_variance: float


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Return the p-value of equal accuracy on the same images, by the exact test of McNemar 1947.

    Args:
        correct_a: ``(N,)``, whether the first model is right.
        correct_b: ``(N,)``, whether the second one is.
    """
    from scipy.stats import binomtest  # takes half a second

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_bootstrap(
    statistic: Statistic,
    labels: Labels,
    probs_a: Sequence[Floats],
    probs_b: Sequence[Floats],
    *,
    strata: NDArray[np.integer] | None = None,
    n_resamples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare a score of two models on the same images, or of two configurations with one run per seed.

    Images are resampled, the same ones for all runs. Seeds are the second level: what their scores differ by beyond
    what the images explain is taken as the variance of a seed, the same for both sides (an analysis of variance with
    two random factors). The interval is that of Student's t, with Satterthwaite's degrees of freedom.

    Args:
        statistic: As of :func:`imgcls.statistics.bootstrap.bca_interval`.
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs_a: ``(N, C)`` probabilities of each run of the first.
        probs_b: Those of the second.
        strata: ``(N,)`` groups whose sizes are kept, such as the labels; None for none.
        n_resamples: None for 1999, fewer for many images.
        confidence: Of the interval.
        seed: Of the resamples.
    """
    from scipy.stats import t as student  # takes half a second

    runs = [weighted_statistic(statistic, labels, probs) for probs in (*probs_a, *probs_b)]
    values = np.array([run(np.ones((1, len(labels))))[0] for run in runs])
    blocks = resamples(len(labels), strata, n_resamples, seed)
    drawn = np.concatenate([np.stack([run(block) for run in runs], axis=1) for block in blocks])
    sides = [slice(len(probs_a)), slice(len(probs_a), None)]
    difference = float(values[sides[0]].mean() - values[sides[1]].mean())
    by_images = float(np.nanvar(drawn[:, sides[0]].mean(axis=1) - drawn[:, sides[1]].mean(axis=1)))
    by_seed, freedom = _seed_variance([(values[side], drawn[:, side]) for side in sides])
    by_seeds = by_seed * (1 / len(probs_a) + 1 / len(probs_b))
    variance = by_images + by_seeds
    if not variance:
        return Difference(difference, Interval(difference, difference), float(difference == 0), 0.0, 0.0)
    degrees = variance**2 / (by_images**2 / max(len(labels) - 1, 1) + (by_seeds**2 / freedom if freedom else 0))
    width = student.ppf((1 + confidence) / 2, degrees) * math.sqrt(variance)
    p_value = float(2 * student.sf(abs(difference) / math.sqrt(variance), degrees))
    return Difference(difference, Interval(difference - width, difference + width), p_value, by_images, by_seeds)


def _seed_variance(sides: list[tuple[Floats, Floats]]) -> tuple[float, int]:
    """Return the variance of a seed beyond that of the images, and its degrees of freedom.

    Args:
        sides: Of each side the values of its runs ``(R,)``, and those of the resamples ``(B, R)``.
    """
    freedom = sum(len(values) - 1 for values, _ in sides)
    if not freedom:
        return 0.0, 0
    between = sum(float(np.square(values - values.mean()).sum()) for values, _ in sides)
    within = sum(float(np.nanvar(drawn - drawn.mean(axis=1, keepdims=True), axis=0).sum()) for _, drawn in sides)
    return max(between - within, 0.0) / freedom, freedom


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm 1979, "A simple sequentially rejective test procedure"."""
    count, largest = len(p_values), 0.0
    found = [0.0] * count
    for rank, index in enumerate(sorted(range(count), key=lambda each: p_values[each])):
        largest = max(largest, min((count - rank) * p_values[index], 1.0))
        found[index] = largest
    return found


def images_needed(difference: Difference, images: int, *, power: float = POWER, confidence: float = 0.95) -> int | None:
    """Return how many images would tell two models apart, if the difference is what it seems to be.

    The variance by the images falls with their number, that by the seeds does not (Connor 1987, "Sample size for
    testing differences in proportions for the paired-sample design", with the variance of the difference itself).

    Args:
        difference: The difference that was found.
        images: The number of images that it was found on.
        power: Probability to tell them apart.
        confidence: Of the test.

    Returns:
        The number of images in all; None if no number is enough.
    """
    from scipy.stats import norm  # takes half a second

    bearable = (difference.value / (norm.ppf((1 + confidence) / 2) + norm.ppf(power))) ** 2 - difference.seed_variance
    return math.ceil(difference.image_variance * images / bearable) if bearable > 0 else None
