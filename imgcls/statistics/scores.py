"""Scores of the probabilities: log loss, Brier score, and calibration, with what a perfect model would show."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from imgcls.statistics.decisions import correct
from imgcls.statistics.intervals import TAILS, Interval
from imgcls.statistics.weighted import Floats, Labels, Score, Weighted, mean_of, sparse

BINS = 15
"""Bins of equal width in which confidence and accuracy are compared."""

_DRAWS = 1000
_LARGEST = 12.0  # shift of log odds
_HALVINGS = 20


def _log_loss(labels: Labels, probs: Floats) -> Weighted:
    smallest = np.finfo(np.float64).eps
    given = np.clip(_of_truth(labels, probs), smallest, 1 - smallest)
    return mean_of(-np.log(given).reshape(len(probs), -1).mean(axis=1))


def _brier(labels: Labels, probs: Floats) -> Weighted:
    squares = np.square(probs - sparse(labels, probs.shape[1]).toarray())
    multiclass = labels.ndim == 1 and probs.shape[1] > 2
    return mean_of(squares.sum(axis=1) if multiclass else squares.mean(axis=1))


def _ece(labels: Labels, probs: Floats) -> Weighted:
    confidence, hits = confidences(labels, probs)
    cells = confidence.size
    rows = np.repeat(np.arange(len(probs)), cells // max(len(probs), 1))
    gaps = csr_array((confidence - hits, (rows, _bin_of(confidence))), shape=(len(probs), BINS))

    def value(weights: Floats) -> Floats:
        total: Floats = np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
        return total / (cells / len(probs))

    return value


log_loss = Score("log_loss", _log_loss)
"""Mean negative log likelihood in nats; multi-label: the mean binary one of all classes."""
brier = Score("brier", _brier)
"""Mean squared error of the probabilities: summed over the classes; mean for two classes and multi-label."""
ece = Score("ece", _ece)
"""Expected calibration error in bins of equal width (Naeini et al. 2015, "Obtaining well calibrated probabilities
using Bayesian binning"); multi-label: of the probabilities of all classes."""


class Bin(NamedTuple):
    """Predictions of similar confidence.

    Args:
        low: Lower edge of the confidence.
        high: Upper edge.
        n: Number of predictions.
        confidence: Their mean confidence.
        accuracy: Share of them that are right.
        band: Where the accuracy of a perfectly calibrated model is in 95 % of such test sets.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    band: Interval


def reliability(labels: Labels, probs: Floats) -> list[Bin]:
    """Return accuracy against confidence in the bins that have predictions, with the band of a perfect model.

    The band has the quantiles of a binomial distribution at the mean confidence (Bröcker and Smith 2007, "Increasing
    the reliability of reliability diagrams").

    Args:
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs: ``(N, C)`` probabilities; multi-label, each is a prediction of its own.
    """
    from scipy.stats import binom  # takes half a second

    given, hits = confidences(labels, probs)
    counts, sums, right = (np.bincount(_bin_of(given), weights, BINS) for weights in (None, given, hits))
    filled, edges = np.flatnonzero(counts), np.linspace(0, 1, BINS + 1)
    counts, means, shares = counts[filled], sums[filled] / counts[filled], right[filled] / counts[filled]
    low, high = (binom.ppf(tail, counts, np.clip(means, 0, 1)) / counts for tail in TAILS)
    columns = (edges[filled], edges[filled + 1], counts, means, shares, low, high)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Bin(start, end, n, mean, right, Interval(*band)) for start, end, n, mean, right, *band in rows]


def ece_of_perfect_model(probs: Floats, *, multilabel: bool = False, tails: tuple[float, float] = TAILS) -> Interval:
    """Return where the calibration error of a perfectly calibrated model with these probabilities is.

    It is not 0: the fewer images, the larger it is by chance alone. The right ones of each bin are drawn from a
    binomial distribution at its mean confidence.

    Args:
        probs: ``(N, C)`` probabilities.
        multilabel: Whether each probability is a prediction of its own.
        tails: Quantiles of the draws that the interval is between.
    """
    counts, means = _bins(probs.ravel() if multilabel else probs.max(axis=1))
    return _drawn_errors(counts, means, means, tails)


def ece_interval(labels: Labels, probs: Floats) -> Interval:
    """Return the 95 % interval of the calibration error that an infinite test set would show.

    A bootstrap does not hold here, because chance only adds to a sum of absolute values. This inverts a test: the
    log odds of the confidences are shifted up or down, and the interval has the errors of all shifts for which what
    was found is within the central part of simulated test sets. It begins at 0 if a perfect model may show it.

    Args:
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs: ``(N, C)`` probabilities.
    """
    counts, means = _bins(confidences(labels, probs)[0])
    found, limits = ece(labels, probs), []
    for side in (-1, 1):

        def rates(shift: float, side: int = side) -> Floats:
            odds: Floats = (1 / np.clip(means, 1e-9, 1 - 1e-9) - 1) * np.exp(side * shift)
            return 1 / (1 + odds) if shift else means

        def drawn(shift: float) -> Interval:
            return _drawn_errors(counts, means, rates(shift))

        if drawn(_LARGEST).high >= found:
            ends = _last(lambda shift: drawn(shift).high < found), _last(lambda shift: drawn(shift).low <= found)
            limits += [float((counts * np.abs(rates(shift) - means)).sum() / counts.sum()) for shift in ends]
    return Interval(min([*limits, found]), max([*limits, found]))


def _last(holds: Callable[[float], bool]) -> float:
    """Return the largest shift for which a condition holds that holds up to one; 0 if it never does."""
    low, high = 0.0, _LARGEST
    if not holds(low):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def confidences(labels: Labels, probs: Floats) -> tuple[Floats, Floats]:
    """Return the probability of each prediction, and whether it is right, as 0 or 1.

    Returns:
        ``(N,)`` each, of the predicted class; multi-label ``(N * C,)``, of each class to be present.
    """
    if labels.ndim == 2:
        return probs.ravel(), labels.astype(np.float64).ravel()
    return probs.max(axis=1), correct(labels, probs).astype(np.float64)


def _bin_of(confidence: Floats) -> NDArray[np.int64]:
    """Return the bin that each confidence is in; 1 is in the last one."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def _bins(given: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the number of predictions in each bin that has some, and their mean confidence."""
    indices = _bin_of(given)
    counts, sums = np.bincount(indices), np.bincount(indices, given)
    return counts[counts > 0], np.clip(sums[counts > 0] / counts[counts > 0], 0, 1)


def _drawn_errors(
    counts: NDArray[np.int64], means: Floats, rates: Floats, tails: tuple[float, float] = TAILS
) -> Interval:
    """Return where the calibration error is for bins of these mean confidences and true rates of being right."""
    hits = np.random.default_rng(0).binomial(counts, rates, (_DRAWS, len(counts)))
    errors = np.abs(hits - counts * means).sum(axis=1) / counts.sum()
    return Interval(*np.quantile(errors, tails).tolist())


def _of_truth(labels: Labels, probs: Floats) -> Floats:
    """Return the probability of the true class ``(N,)``; multi-label ``(N, C)``, of what is true of each class."""
    if labels.ndim == 1:
        return np.take_along_axis(probs, labels[:, None].astype(np.int64), axis=1)
    return np.where(labels.astype(bool), probs, 1 - probs)
