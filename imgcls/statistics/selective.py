"""Predictions with a guarantee: abstain so that few are wrong, and label sets that contain the true class."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

_ERROR = 0.05  # probability that a guarantee does not hold
_STEPS = [digits / power for power in (10_000, 1_000, 100) for digits in range(10, 100)]  # 0.001 to 0.99, two digits


class RiskThreshold(NamedTuple):
    """The least confidence of a prediction; below it, the model abstains.

    Args:
        confidence: An image whose highest probability is at least this has a prediction.
        answered: Number of calibration images that have one.
        wrong: How many of these predictions are wrong.
    """

    confidence: float
    answered: int
    wrong: int


def risk_threshold(confidences: NDArray[np.floating], correct: NDArray[np.bool_], risk: float) -> RiskThreshold | None:
    """Find the lowest confidence above which at most a share ``risk`` of the predictions is wrong.

    Each value of the calibration images is a threshold. Its hypothesis "the risk is higher" is rejected by the exact
    binomial test, as Clopper and Pearson's bound does, from the highest value down until one is not rejected (learn
    then test, Angelopoulos et al. 2021, with a fixed sequence). The k sequences start at m, 2m, 4m … predictions, with
    the largest k that the images allow, so that a wrong prediction among the first images does not end all. Each
    sequence has the error 0.05 / k, and m images without a wrong one pass with it: for k > 1, m is more than
    ``images_needed``. The rejected threshold with the most predictions is chosen.

    So the guarantee holds with a probability of 95 % over the draw of the calibration images, if less confident
    predictions are not more often right, and if the images are drawn as those to predict are. The best of all
    thresholds at the whole error would not keep it, since the same images choose it.

    Args:
        confidences: Highest probability of each calibration image, ``(N,)``.
        correct: Whether its class is the true one, ``(N,)``.
        risk: The largest share of wrong predictions, above 0 and below 1.

    Returns:
        None if no threshold can be guaranteed.
    """
    order = np.argsort(-confidences, kind="stable")
    values, wrong = confidences[order], np.cumsum(~correct[order])
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True)[: len(values)])  # image of each value
    answered = last + 1
    starts, error = _starts(len(values), risk)
    fails = np.append(np.flatnonzero(binom.cdf(wrong[last], answered, risk) > error), len(last))
    firsts = np.searchsorted(answered, starts)
    found = max((_end(fails, int(first)) for first in firsts), default=-1)
    if found < 0:
        return None
    return RiskThreshold(float(values[last[found]]), int(answered[found]), int(wrong[last[found]]))


def _end(fails: NDArray[np.integer], first: int) -> int:
    """Return the last value before the first one that is not rejected; -1 if that is the start."""
    end = int(fails[np.searchsorted(fails, first)])
    return end - 1 if end > first else -1


def _starts(images: int, risk: float) -> tuple[list[int], float]:
    """Return the numbers of predictions at which sequences start, and the error of each."""
    starts: list[int] = []
    while True:
        first = images_needed(risk, _ERROR / (len(starts) + 1))
        if first << len(starts) > images:
            return starts, _ERROR / max(len(starts), 1)
        starts = [first << power for power in range(len(starts) + 1)]


def images_needed(risk: float, error: float = _ERROR) -> int:
    """Return how many images must be predicted correctly, without a wrong one, to guarantee a risk but for an error."""
    return math.ceil(math.log(error) / math.log(1 - risk))


def smallest_risk(confidences: NDArray[np.floating], correct: NDArray[np.bool_], above: float = 0) -> float | None:
    """Return the smallest risk of two digits above another that these images can guarantee; None if there is none."""
    steps = (risk for risk in _STEPS if risk > above)
    return next((risk for risk in steps if risk_threshold(confidences, correct, risk)), None)


def set_threshold(of_truth: NDArray[np.floating], coverage: float) -> float | None:
    """Return the least probability of a class in a label set, so that sets contain the true class often enough.

    Split conformal prediction with the score 1 - probability (Sadinle et al. 2019): on average over draws of the
    calibration images, sets of all classes with at least this probability contain the true class with a probability
    from ``coverage`` to ``coverage + 1 / (N + 1)``.

    Args:
        of_truth: Probability of the true class of each calibration image, ``(N,)``.
        coverage: Above 0 and below 1.

    Returns:
        None if there are fewer images than ``images_for_sets``.
    """
    rank = _left_out(len(of_truth), coverage)
    return float(np.sort(of_truth)[rank - 1]) if rank else None


def images_for_sets(coverage: float) -> int:
    """Return how many calibration images a coverage needs."""
    return math.ceil(1 / (1 - coverage) - 1 - 1e-9)


def coverage_interval(images: int, coverage: float) -> tuple[float, float]:
    """Return the 95 % interval of the coverage that one draw of calibration images gives (a Beta distribution)."""
    rank = _left_out(images, coverage)
    low, high = beta.interval(0.95, images + 1 - rank, rank)
    return float(low), float(high)


def _left_out(images: int, coverage: float) -> int:
    return math.floor((images + 1) * (1 - coverage) + 1e-9)
