"""Bootstrap intervals of scores for which no formula holds: F1, AUROC, log loss, calibration error."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.intervals import TAILS, Interval
from imgcls.statistics.weighted import Floats, Labels, Score, Weighted

_CELLS = 2_000_000  # of a block of weights
_WORK = 40_000_000  # resamples times images, at most
_RESAMPLES = (299, 1999)
_GROUPS = 200  # of the jackknife
_ALONE = 1000  # images up to which each is a group
_MISTAKES = 50  # of the weight of one image in all
_UNLIKELY = 1e-9  # probability that is added to each, since all may be 0


def bca_interval(
    score: Score,
    labels: Labels,
    probs: Floats,
    *,
    strata: NDArray[np.integer] | None = None,
    n_resamples: int | None = None,
) -> Interval:
    """Return the bias-corrected and accelerated 95 % bootstrap interval of a score (Efron 1987, "Better bootstrap").

    The images count as if they had one mistake more, at images and classes where the probabilities make it likely:
    else a model without mistakes among 50 images would get an interval of no width (as Agresti and Coull 1998,
    "Approximate is better than exact", add images to a share).

    Args:
        score: The score.
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs: ``(N, C)`` probabilities.
        strata: ``(N,)`` groups whose sizes are kept, such as the labels; None for none.
        n_resamples: None for 1999, and fewer, at least 299, from 20,000 images on.

    Returns:
        The interval; NaN if the score is undefined.
    """
    found = score(labels, probs)
    if np.isnan(found):
        return Interval(np.nan, np.nan)
    n, rng = len(probs), np.random.default_rng(0)
    weighted = score.weighted(*_with_mistakes(labels, probs, rng))
    ones = np.append(np.ones((1, n)), np.full((1, _MISTAKES), 1 / _MISTAKES), axis=1)
    values = []
    for block in resamples(n, strata, n_resamples):
        extra = rng.poisson(1 / _MISTAKES, (len(block), _MISTAKES)).astype(np.float64)
        values.append(weighted(np.append(block, extra, axis=1)))
    low, high = _bca(weighted(ones)[0], np.concatenate(values), _acceleration(weighted, ones, n))
    return Interval(min(low, found), max(high, found))


def _bca(estimate: float, values: Floats, acceleration: float) -> Interval:
    """Return the interval, from the values of the resamples."""
    from scipy.stats import norm  # takes half a second

    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(np.nan, np.nan)
    below = ((values < estimate).sum() + (values == estimate).sum() / 2) / len(values)
    bias = norm.ppf(np.clip(below, 1 / (len(values) + 1), len(values) / (len(values) + 1)))
    tails = bias + norm.ppf(TAILS)
    low, high = np.quantile(values, norm.cdf(bias + tails / (1 - acceleration * tails)))
    return Interval(float(low), float(high))


def resamples(
    count: int, strata: NDArray[np.integer] | None = None, n_resamples: int | None = None
) -> Iterator[Floats]:
    """Yield blocks ``(B, N)`` of weights: how often each image is in each resample; the same for the same arguments.

    Args:
        count: Number of images.
        strata: ``(N,)`` groups whose sizes are kept; None for none.
        n_resamples: Number of resamples; None as in :func:`bca_interval`.
    """
    rng = np.random.default_rng(0)
    groups = [np.arange(count)] if strata is None else [np.flatnonzero(strata == each) for each in np.unique(strata)]
    left = n_resamples or int(np.clip(_WORK // count, *_RESAMPLES))
    while left:
        size = min(left, max(_CELLS // count, 1))
        weights = np.empty((size, count))
        for group in groups:
            drawn = rng.integers(len(group), size=(size, len(group))) + len(group) * np.arange(size)[:, None]
            weights[:, group] = np.bincount(drawn.ravel(), minlength=size * len(group)).reshape(size, -1)
        yield weights
        left -= size


def _with_mistakes(labels: Labels, probs: Floats, rng: np.random.Generator) -> tuple[Labels, Floats]:
    """Append images whose label is not what is predicted, drawn by the probabilities of such labels."""
    if labels.ndim == 2:
        likely, predicted = np.minimum(probs, 1 - probs), probs > 0.5
    else:
        likely, predicted = probs.copy(), np.eye(probs.shape[1], dtype=bool)[probs.argmax(axis=1)]
        likely[predicted] = -_UNLIKELY
    likely = likely + _UNLIKELY
    rows, classes = np.divmod(rng.choice(likely.size, _MISTAKES, p=(likely / likely.sum()).ravel()), probs.shape[1])
    wrong = classes
    if labels.ndim == 2:
        wrong = labels[rows].astype(np.int64)
        wrong[np.arange(_MISTAKES), classes] = ~predicted[rows, classes]
    return np.concatenate([labels, wrong]), np.concatenate([probs, probs[rows]])


def _acceleration(weighted: Weighted, ones: Floats, count: int) -> float:
    """Return the acceleration of BCa by a jackknife, which leaves out groups of images if there are many."""
    groups = np.arange(count) if count <= _ALONE else np.random.default_rng(0).permutation(count) % _GROUPS
    groups = np.append(groups, np.full(ones.size - count, groups.max() + 1))  # the mistakes are one image
    members = np.unique(groups)
    step = max(_CELLS // count, 1)
    blocks = [members[start : start + step] for start in range(0, len(members), step)]
    left_out = np.concatenate([weighted((groups[None] != block[:, None]) * ones) for block in blocks])
    left_out = left_out[~np.isnan(left_out)]
    distance = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = np.square(distance).sum() ** 1.5
    return float((distance**3).sum() / (6 * spread)) if spread else 0.0
