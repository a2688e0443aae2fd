"""Comparisons of models on the same images."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.bootstrap import resamples
from imgcls.statistics.intervals import TAILS, Interval
from imgcls.statistics.weighted import Floats, Labels, Score

POWER = 0.8
"""Probability with which the number of images that :func:`images_needed` returns tells two models apart."""

_ROUNDING = 1e-30  # of a variance
_RESAMPLES = 500  # in which the best model is chosen


class Difference(NamedTuple):
    """A difference of two scores.

    Args:
        value: The first minus the second, or the first alone; of several seeds, of their means.
        interval: Its 95 % interval.
        p_value: Two-sided, of a value of 0.
        image_variance: Its variance by the choice of the images.
        seed_variance: Its variance by the choice of the seeds; 0 if each side has one.
        degrees: Degrees of freedom that the seeds leave to its variance; infinite if each side has one.
    """

    value: float
    interval: Interval
    p_value: float
    image_variance: float
    seed_variance: float
    degrees: float


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Return the p-value of equal accuracy on the same images, by the exact test of McNemar 1947.

    Args:
        correct_a: ``(N,)``, whether the first model is right.
        correct_b: ``(N,)``, whether the second one is.
    """
    from scipy.stats import binomtest  # takes half a second

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


class Resampled(NamedTuple):
    """A score of several runs on the same images, and on resamples of them.

    Args:
        values: ``(R,)``, the score of each run.
        drawn: ``(B, R)``, that of each resample, whose images are the same for all runs.
        images: Number of images.
    """

    values: Floats
    drawn: Floats
    images: int


def resample(
    score: Score,
    labels: Labels,
    probs: Sequence[Floats],
    *,
    strata: NDArray[np.integer[Any]] | None = None,
    n_resamples: int | None = None,
) -> Resampled:
    """Compute a score of several runs on resamples of their images.

    Args:
        score: The score.
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs: ``(N, C)`` probabilities of each run.
        strata: ``(N,)`` groups whose sizes are kept, such as the labels; None for none.
        n_resamples: None for 1999, fewer for many images.
    """
    runs = [score.weighted(labels, each) for each in probs]
    values = np.array([run(np.ones((1, len(labels))))[0] for run in runs])
    blocks = resamples(len(labels), strata, n_resamples)
    drawn = np.concatenate([np.stack([run(block) for run in runs], axis=1) for block in blocks])
    return Resampled(values, drawn[~np.isnan(drawn).any(axis=1)], len(labels))


def contrast(found: Resampled, plus: Sequence[int], minus: Sequence[int] = ()) -> Difference:
    """Return the mean score of some runs, minus that of others, with its uncertainty over images and seeds.

    The resamples have the same images for all runs: of one run a side, this is the paired bootstrap.

    The runs of a side are those of one configuration with several seeds. Seeds are a second level beside the images:
    by how much their scores differ beyond what the images explain is the variance of a seed, taken as the same for
    both sides (an analysis of variance with two random factors). The interval is that of Student's t, with the degrees
    of freedom of Satterthwaite 1946.

    Args:
        found: The scores.
        plus: Runs of the first side.
        minus: Runs of the second side; none for the mean of the first alone.
    """
    from scipy.stats import t as student  # takes half a second

    sides = [list(side) for side in (plus, minus) if side]
    signs = np.zeros(len(found.values))
    for side, sign in zip(sides, (1, -1), strict=False):
        signs[side] += sign / len(side)
    difference, by_images = float(found.values @ signs), float(np.var(found.drawn @ signs))
    between, within, freedom = _seed_variances(found, sides)
    share = sum(1 / len(side) for side in sides)
    by_seeds = share * max(between - within, 0.0)
    variance = by_images + by_seeds
    if variance <= _ROUNDING:
        return Difference(difference, Interval(difference, difference), float(difference == 0), 0.0, 0.0, math.inf)
    of_seeds = (share * between) ** 2 / max(freedom, 1)
    degrees = variance**2 / (by_images**2 / max(found.images - 1, 1) + of_seeds)
    width = student.ppf(TAILS[1], degrees) * math.sqrt(variance)
    p_value = float(2 * student.sf(abs(difference) / math.sqrt(variance), degrees))
    interval = Interval(difference - width, difference + width)
    left = variance**2 / of_seeds if of_seeds else math.inf
    return Difference(difference, interval, p_value, by_images, by_seeds, left)


def _seed_variances(found: Resampled, sides: list[list[int]]) -> tuple[float, float, int]:
    """Return the variance between runs of a side, the part of it by the images, and the degrees of freedom."""
    freedom = sum(len(side) - 1 for side in sides)
    between, within = 0.0, 0.0
    for side in sides:
        values, drawn = found.values[side], found.drawn[:, side]
        between += float(np.square(values - values.mean()).sum())
        within += float(np.var(drawn - drawn.mean(axis=1, keepdims=True), axis=0).sum())
    return between / max(freedom, 1), within / max(freedom, 1), freedom


def expected_of_best(score: Score, labels: Labels, probs: Sequence[Floats], *, higher_is_better: bool = True) -> float:
    """Return the score to expect, on other images, of the model that is the best of several on these.

    In each resample the best model is chosen, and scored on the images that the resample lacks (Tsamardinos et al.
    2018, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation").

    Args:
        score: The score.
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs: ``(N, C)`` probabilities of each model.
        higher_is_better: Whether the largest score is the best.
    """
    runs = [score.weighted(labels, each) for each in probs]
    scores = []
    for block in resamples(len(labels), None, _RESAMPLES):
        usable = block[(block == 0).any(axis=1)]
        inside, outside = (np.stack([run(each) for run in runs], axis=1) for each in (usable, (usable == 0) * 1.0))
        best = inside.argmax(axis=1) if higher_is_better else inside.argmin(axis=1)
        scores.append(outside[np.arange(len(outside)), best])
    return float(np.nanmean(np.concatenate(scores)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm 1979, "A simple sequentially rejective test procedure"."""
    count, largest = len(p_values), 0.0
    found = [0.0] * count
    for rank, index in enumerate(sorted(range(count), key=lambda each: p_values[each])):
        largest = max(largest, min((count - rank) * p_values[index], 1.0))
        found[index] = largest
    return found


def images_needed(difference: Difference, images: int, *, confidence: float = 0.95) -> int | None:
    """Return how many images would tell two models apart, if the difference is what it seems to be.

    The variance by the images falls with their number, that by the seeds does not (Connor 1987, "Sample size for
    testing differences in proportions for the paired-sample design", with the variance of the difference itself). The
    quantiles are those of the test: Student's t with the degrees of freedom that the seeds leave, else the normal ones.

    Args:
        difference: The difference that was found.
        images: The number of images that it was found on.
        confidence: Of the test.

    Returns:
        The number of images in all; None if no number is enough.
    """
    from scipy.stats import t as student  # takes half a second

    quantiles = student.ppf([(1 + confidence) / 2, POWER], difference.degrees).sum()
    bearable = (difference.value / quantiles) ** 2 - difference.seed_variance
    return math.ceil(difference.image_variance * images / bearable) if bearable > 0 else None
