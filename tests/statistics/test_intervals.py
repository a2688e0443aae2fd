"""Coverage of the intervals of shares, by exact sums over all results."""

import pytest
from scipy.stats import binom

from imgcls.statistics.intervals import proportion, wilson


@pytest.mark.parametrize("share", [0.8, 0.9, 0.99])
@pytest.mark.parametrize("total", [50, 360, 654])
def test_coverage(total: int, share: float) -> None:
    counts = range(int(binom.ppf(1e-6, total, share)), total + 1)
    for interval in (wilson, proportion):
        held = [count for count in counts if interval(count, total).low <= share <= interval(count, total).high]
        covered = binom.pmf(held, total, share).sum()
        lowest = 0.91 if (total, share) == (50, 0.99) else 0.93
        assert lowest <= covered <= 0.98


def test_values() -> None:
    assert wilson(577, 654) == pytest.approx((0.8553, 0.9048), abs=1e-4)
    assert proportion(577, 654) == wilson(577, 654)
    assert proportion(50, 50) == pytest.approx((0.025 ** (1 / 50), 1))
    assert proportion(0, 50) == pytest.approx((0, 1 - 0.025 ** (1 / 50)))
    assert wilson(5, 50, confidence=0.8).low > wilson(5, 50).low
