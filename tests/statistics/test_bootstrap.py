"""Bootstrap intervals: against scipy, their coverage in simulations, and what they do without mistakes."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap

from imgcls.statistics.bootstrap import _acceleration, _bca, bca_interval, resamples
from imgcls.statistics.decisions import macro_f1
from imgcls.statistics.ranking import auroc
from imgcls.statistics.scores import brier, ece, ece_interval, log_loss
from imgcls.statistics.weighted import Floats, Score

SPREADS = {0.8: 1.45, 0.9: 3.2, 0.99: 36.0}  # of the logits, accuracy -> standard deviation
CONFIDENCE = 0.8  # the logits are this much too small: somewhat underconfident


def draw(images: int, spread: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Images of two classes, whose labels follow from logits of this spread."""
    logits = rng.normal(0, spread * np.sqrt(2), images)
    labels = (rng.random(images) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    probs = 1 / (1 + np.exp(-CONFIDENCE * logits))
    return labels, np.stack([1 - probs, probs], axis=1)


def coverage(score: Score, images: int, spread: float, simulations: int, n_resamples: int) -> float:
    """Share of simulated test sets whose interval has the score of a million images."""
    truth = score(*draw(1_000_000, spread, np.random.default_rng(0)))
    held = 0
    for seed in range(simulations):
        labels, probs = draw(images, spread, np.random.default_rng(seed + 1))
        if score is ece:
            low, high = ece_interval(labels, probs)
        else:
            low, high = bca_interval(score, labels, probs, n_resamples=n_resamples)
        held += low <= truth <= high
    return held / simulations


@pytest.mark.parametrize("score", [macro_f1, auroc, log_loss, ece], ids=lambda score: score.name)
def test_coverage_of_few_simulations(score: Score) -> None:
    assert coverage(score, 100, SPREADS[0.9], 40, 199) >= 0.87  # of 0.95, two standard errors below


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", SPREADS)
@pytest.mark.parametrize("images", [50, 360, 654])
@pytest.mark.parametrize("score", [macro_f1, auroc, log_loss, brier, ece], ids=lambda score: score.name)
def test_coverage(score: Score, images: int, accuracy: float) -> None:
    lowest = 0.93
    if images == 50:  # few mistakes decide the log loss and the Brier score
        lowest = 0.88 if accuracy == 0.99 else 0.91
    found = coverage(score, images, SPREADS[accuracy], 300, 499)
    assert found >= lowest - 0.025  # two standard errors of the simulation
    assert found <= 1.0 if accuracy == 0.99 or score is ece else found <= 0.98 + 0.015


def test_without_mistakes_the_interval_has_a_width() -> None:
    labels = np.arange(50) % 2
    probs = np.where(labels[:, None] == [0, 1], 0.95, 0.05)
    for score in (macro_f1, auroc):
        low, high = bca_interval(score, labels, probs)
        assert 0.85 < low < 0.99
        assert high == 1


def test_without_a_further_mistake_the_interval_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    labels, probs = draw(200, 3.0, rng)
    expected = bootstrap((-np.log(probs[np.arange(200), labels]),), np.mean, n_resamples=1999, rng=rng)
    weighted, ones = log_loss.weighted(labels, probs), np.ones((1, 200))
    values = np.concatenate([weighted(block) for block in resamples(200)])
    found = _bca(weighted(ones)[0], values, _acceleration(weighted, ones, 200))
    assert len(values) == 1999
    assert found == pytest.approx((expected.confidence_interval.low, expected.confidence_interval.high), abs=0.01)


def test_strata_keep_their_sizes() -> None:
    strata = np.repeat([0, 1, 2], [5, 20, 75])
    [weights] = resamples(100, strata, 40)
    assert weights.shape == (40, 100)
    for each, size in enumerate([5, 20, 75]):
        assert (weights[:, strata == each].sum(axis=1) == size).all()
    assert np.array_equal(next(resamples(100, strata, 40)), weights)


def test_an_undefined_score_has_no_interval() -> None:
    labels, probs = draw(20, 3.0, np.random.default_rng(0))
    undefined = Score("undefined", lambda labels, probs: lambda weights: np.full(len(weights), np.nan))
    assert np.isnan(bca_interval(undefined, labels, probs)).all()
    assert np.isnan(bca_interval(auroc, np.zeros(20, np.int64), probs)).all()  # all images have one class


def test_interval_of_the_calibration_error_begins_at_zero_for_a_perfect_model() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 2000)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    perfect = (rng.random(2000) > confidence).astype(np.int64)
    wrong = (rng.random(2000) > confidence - 0.2).astype(np.int64)
    assert ece_interval(perfect, probs).low == 0
    low, high = ece_interval(wrong, probs)
    assert 0.15 < low < 0.2 < high < 0.25
