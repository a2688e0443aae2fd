"""Confidence intervals of shares, such as the accuracy, or the recall of a class."""

from typing import NamedTuple

TAILS = (0.025, 0.975)
"""Quantiles between which a 95 % interval is."""


class Interval(NamedTuple):
    """A confidence interval; of a share both are from 0 to 1."""

    low: float
    high: float


def wilson(count: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of ``count / total``, such as the accuracy on ``total`` images.

    It keeps its confidence for shares near 0 and 1 and few images, where that of a bootstrap does not (Wilson 1927,
    "Probable inference, the law of succession, and statistical inference"; Brown et al. 2001).

    Args:
        count: Number of successes.
        total: Number of trials, at least 1.
        confidence: Of the interval, between 0 and 1.
    """
    return _interval(count, total, "wilson", confidence)


def proportion(count: int, total: int) -> Interval:
    """Return the 95 % interval of a share: Wilson's, and the exact one where ``count`` is 0 or ``total``.

    The exact one is that of Clopper and Pearson 1934, "The use of confidence or fiducial limits".
    """
    return _interval(count, total, "exact" if count in {0, total} else "wilson")


def _interval(count: int, total: int, method: str, confidence: float = 0.95) -> Interval:
    from scipy.stats import binomtest  # takes half a second

    found = binomtest(count, total).proportion_ci(confidence, method=method)
    return Interval(float(found.low), float(found.high))
