"""Comparisons on the same images: exact values, and error rates in seeded simulations."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from imgcls.statistics.decisions import accuracy, macro_f1
from imgcls.statistics.intervals import Interval
from imgcls.statistics.paired import (
    Difference,
    contrast,
    expected_of_best,
    holm,
    images_needed,
    mcnemar,
    resample,
)
from imgcls.statistics.weighted import Floats, Score


def test_mcnemar_is_a_sign_test_of_the_images_that_one_alone_has_right() -> None:
    a, b = np.repeat([True, True, False, False], [90, 7, 1, 2]), np.repeat([True, False, True, False], [90, 7, 1, 2])
    assert mcnemar(a, b) == pytest.approx(binomtest(1, 8).pvalue)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, a) == 1


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001, 0.9]) == pytest.approx([1, 0.003, 1])
    assert holm([]) == []


def as_probs(hits: np.ndarray) -> Floats:
    """Return probabilities of two classes; class 0 is the truth."""
    return np.where(hits[:, None], [[0.9, 0.1]], [[0.2, 0.8]])


def difference(score: Score, plus: list[Floats], minus: list[Floats], n_resamples: int | None = None) -> Difference:
    """Return the difference of two sides by the paired bootstrap; class 0 is the truth."""
    found = resample(score, np.zeros(len(plus[0]), np.int64), [*plus, *minus], n_resamples=n_resamples)
    numbers = range(len(plus) + len(minus))
    return contrast(found, numbers[: len(plus)], numbers[len(plus) :])


def test_difference_of_one_run_each() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(1000) < 0.9, rng.random(1000) < 0.8
    found = difference(accuracy, [as_probs(a)], [as_probs(b)])
    differs = a.astype(float) - b
    assert found.value == pytest.approx(differs.mean())
    assert found.image_variance == pytest.approx(differs.var() / 1000, rel=0.1)
    assert found.seed_variance == 0
    assert found.interval.low < 0.1 < found.interval.high
    assert found.p_value < 1e-4


def test_equal_runs_do_not_differ() -> None:
    probs = as_probs(np.arange(50) < 40)
    found = difference(macro_f1, [probs], [probs])
    assert found == Difference(0, Interval(0, 0), 1, 0, 0, np.inf)
    assert images_needed(found, 50) is None


def test_images_needed_is_the_number_that_is_enough() -> None:
    per_image = 0.06 - 0.01**2  # 6 % are right in one alone
    found = Difference(0.01, Interval(0, 0), 0.5, per_image / 654, 0.0, np.inf)
    needed = images_needed(found, 654)
    assert needed == pytest.approx(per_image * (2.8016 / 0.01) ** 2, abs=2)
    hits = np.random.default_rng(0).multinomial(int(needed or 0), [0.035, 0.025, 0.94], size=2000)
    told = np.mean([binomtest(a, a + b).pvalue < 0.05 for a, b, _ in hits])
    assert 0.77 < told < 0.83


@pytest.mark.parametrize("degrees", [1, 2, 5])
def test_images_needed_uses_the_test_that_is_made(degrees: int) -> None:
    found = Difference(0.05, Interval(0, 0), 0.2, 1e-3, 0.0, degrees)
    needed = images_needed(found, 600)
    quantiles = student.ppf(0.975, degrees) + student.ppf(0.8, degrees)
    assert needed == pytest.approx(1e-3 * 600 * (quantiles / 0.05) ** 2, abs=1)


def test_what_cannot_be_told_apart_needs_more_images() -> None:
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(40):
        probs = [as_probs(rng.random(600) < share) for share in (0.84, 0.84, 0.9)]
        found = difference(accuracy, probs[:2], probs[2:], n_resamples=200)
        needed = images_needed(found, 600)
        if found.p_value >= 0.05 and needed is not None:
            checked += 1
            assert needed > 600
    assert checked > 5


def test_no_number_of_images_replaces_seeds() -> None:
    assert images_needed(Difference(0.01, Interval(0, 0), 0.5, 1e-4, 1e-4, np.inf), 654) is None


def of_difficulty(images: int, gaps: list[float], rng: np.random.Generator, seed_spread: float = 0.0) -> np.ndarray:
    """Whether each model is right, ``(models, images)``: images are difficult for all of them, models vary by seed."""
    shift = np.array(gaps) + rng.normal(0, seed_spread, len(gaps))
    ability = rng.normal(2.0, 1.5, images) + shift[:, None]
    return ability + rng.normal(0, 1, (len(gaps), images)) > 0


@pytest.mark.parametrize("images", [200, 654])
def test_equal_models_are_seldom_told_apart(images: int) -> None:
    rng = np.random.default_rng(images)
    p_values = [mcnemar(*of_difficulty(images, [0, 0], rng)) for _ in range(1000)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.06


def test_four_points_on_2000_images_are_found() -> None:
    rng = np.random.default_rng(0)
    hits = [of_difficulty(2000, [0.34, 0], rng) for _ in range(200)]
    assert np.mean([a.mean() - b.mean() for a, b in hits]) == pytest.approx(0.04, abs=0.005)
    assert np.mean([mcnemar(a, b) < 0.05 and a.mean() > b.mean() for a, b in hits]) >= 0.8


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (3, 0.15), (5, 0.15)])
def test_equal_configurations_are_seldom_told_apart(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(seeds)
    p_values = []
    for _ in range(150):
        hits = of_difficulty(300, [0] * (2 * seeds), rng, spread)
        probs = [as_probs(each) for each in hits]
        found = difference(accuracy, probs[:seeds], probs[seeds:], n_resamples=200)
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.09  # 0.05, and two standard errors


def test_the_best_of_equal_models_is_not_better() -> None:
    found, seen = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(1.6, 1.2, (300, 1))
        hits = difficulty + rng.normal(0, 0.7, (300, 15)) > 0
        probs = [np.where(each[:, None], [[0.9, 0.1]], [[0.1, 0.9]]) for each in hits.T]
        seen.append(hits.mean(axis=0).max())
        found.append(expected_of_best(accuracy, np.zeros(300, np.int64), probs))
    truth = norm.cdf(1.6 / np.hypot(1.2, 0.7))
    assert np.mean(seen) - truth > 0.015
    assert abs(np.mean(found) - truth) < 0.01
