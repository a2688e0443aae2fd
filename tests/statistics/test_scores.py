"""Scores against scikit-learn, weighted and not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from imgcls.statistics.decisions import (
    accuracy,
    balanced_accuracy,
    correct,
    label_accuracy,
    macro_f1,
    predicted,
)
from imgcls.statistics.ranking import auroc, average_precision
from imgcls.statistics.scores import brier, ece, ece_of_perfect_model, log_loss, reliability
from imgcls.statistics.weighted import Floats, Score

Made = tuple[NDArray[np.int64], Floats]


def single_label(images: int = 300, classes: int = 4, seed: int = 0) -> Made:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.dirichlet(np.full(classes, 0.5), images), 2)  # with equal ones
    probs /= probs.sum(axis=1, keepdims=True)
    return np.array([rng.choice(classes, p=row) for row in probs]), probs


def multi_label(images: int = 300, classes: int = 3, seed: int = 0) -> Made:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.beta(0.5, 0.8, (images, classes)), 2)
    return (rng.random(probs.shape) < probs).astype(np.int64), probs


def of_sklearn(labels: NDArray[np.int64], probs: Floats, weights: Floats | None = None) -> dict[Score, float]:
    kind = {"average": "macro", "sample_weight": weights}
    found = predicted(labels, probs)
    areas = probs[:, 1] if probs.shape[1] == 2 and labels.ndim == 1 else probs
    hot = labels if labels.ndim == 2 else np.eye(probs.shape[1])[labels]
    columns = range(hot.shape[1]) if labels.ndim == 2 or probs.shape[1] > 2 else range(1, 2)
    precisions = [metrics.average_precision_score(hot[:, c], probs[:, c], sample_weight=weights) for c in columns]
    losses = [metrics.log_loss(hot[:, c], probs[:, c], sample_weight=weights) for c in range(probs.shape[1])]
    squares = [metrics.brier_score_loss(hot[:, c], probs[:, c], sample_weight=weights) for c in range(probs.shape[1])]
    several = labels.ndim == 2
    return {
        accuracy: metrics.accuracy_score(labels, found, sample_weight=weights),
        label_accuracy: 1 - metrics.hamming_loss(labels, found, sample_weight=weights),
        **({} if several else {balanced_accuracy: metrics.recall_score(labels, found, **kind)}),
        macro_f1: metrics.f1_score(labels, found, **kind),
        auroc: metrics.roc_auc_score(labels, areas, multi_class="ovr", **kind),
        average_precision: float(np.mean(precisions)),
        log_loss: np.mean(losses) if several else metrics.log_loss(labels, probs, sample_weight=weights),
        brier: np.mean(squares) if several else metrics.brier_score_loss(labels, probs, sample_weight=weights),
    }


@pytest.mark.parametrize("made", [single_label(), single_label(classes=2), multi_label()])
def test_scores_are_those_of_sklearn(made: Made) -> None:
    labels, probs = made
    for score, value in of_sklearn(labels, probs).items():
        assert score(labels, probs) == pytest.approx(value, abs=1e-12), score.name


@pytest.mark.parametrize("made", [single_label(), single_label(classes=2), multi_label()])
def test_weighted_scores_are_those_of_repeated_images(made: Made) -> None:
    labels, probs = made
    weights = np.random.default_rng(1).integers(0, 3, (2, len(labels)))
    for score in (accuracy, macro_f1, auroc, average_precision, log_loss, brier, ece):
        repeated = [score(np.repeat(labels, row, axis=0), np.repeat(probs, row, axis=0)) for row in weights]
        assert score.weighted(labels, probs)(weights.astype(float)) == pytest.approx(repeated, abs=1e-12), score.name


def test_multi_label_predictions_exceed_one_half() -> None:
    labels, probs = np.array([[1, 0], [1, 1]]), np.array([[0.4, 0.2], [0.6, 0.9]])
    assert predicted(labels, probs).tolist() == [[0, 0], [1, 1]]
    assert correct(labels, probs).tolist() == [False, True]
    assert macro_f1(labels, probs) == pytest.approx((2 / 3 + 1) / 2)


def test_classes_without_images_are_left_out() -> None:
    labels, probs = np.array([0, 1, 0]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    assert macro_f1(labels, probs) == pytest.approx(2 / 3)
    assert auroc(labels, probs) == 1
    assert np.isnan(auroc(np.zeros(3, np.int64), probs))


def test_calibration_error_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probs = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.92, 0.08], [0.6, 0.4], [0.45, 0.55]])
    monkeypatch.setattr("imgcls.statistics.scores.BINS", 2)
    assert ece(labels, probs) == pytest.approx(abs((0.9 + 0.92 + 0.6 + 0.55) - 3) / 4)
    monkeypatch.setattr("imgcls.statistics.scores.BINS", 10)
    assert ece(labels, probs) == pytest.approx((0.18 + 0.6 + 0.45) / 4)
    assert ece(np.array([[1, 0], [0, 1]]), np.array([[0.7, 0.4], [0.4, 0.8]])) == pytest.approx(1.3 / 4)


def test_reliability_counts_each_bin_and_has_a_band() -> None:
    labels, probs = single_label(2000)
    rows = reliability(labels, probs)
    assert sum(row.n for row in rows) == 2000
    error = sum(row.n * abs(row.confidence - row.accuracy) for row in rows) / 2000
    assert ece(labels, probs) == pytest.approx(error, abs=1e-12)
    assert all(row.n for row in rows)
    assert rows[0].low > 0  # four classes: no confidence is below 1/4
    assert all(row.low <= row.confidence <= row.high for row in rows)
    held = [row.band.low <= row.accuracy <= row.band.high for row in rows]
    assert sum(held) >= len(held) - 1


@pytest.mark.parametrize(("images", "low", "high"), [(100, 0.037, 0.099), (654, 0.017, 0.040)])
def test_calibration_error_of_a_perfect_model_is_not_zero(images: int, low: float, high: float) -> None:
    """Figures of a simulation of 90 % intervals, with confidences of a Beta distribution."""
    confidence = np.maximum(np.random.default_rng(0).beta(8, 1.2, images), 0.5)
    found = ece_of_perfect_model(np.stack([confidence, 1 - confidence], axis=1), tails=(0.05, 0.95))
    assert found == pytest.approx((low, high), abs=0.006)


def test_perfect_multi_label_model() -> None:
    labels, probs = multi_label(400)
    low, high = ece_of_perfect_model(probs, multilabel=True)
    assert low < ece(labels, probs) < high


@pytest.mark.parametrize("made", [single_label(6000), single_label(12000, classes=2), multi_label(8000)])
@pytest.mark.parametrize("score", [auroc, average_precision])
def test_areas_of_many_images_are_linear_in_the_weights(
    score: Score, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, probs = made
    weights = np.random.default_rng(1).poisson(1, (20, len(labels))).astype(float)
    linear, value = score.weighted(labels, probs)(weights), score(labels, probs)
    monkeypatch.setattr("imgcls.statistics.ranking._EXACT", probs.size)
    exact = score.weighted(labels, probs)(weights)
    assert value == pytest.approx(score(labels, probs), abs=1e-12)
    assert np.std(linear - exact) < 0.05 * np.std(exact)
    assert linear.std() == pytest.approx(exact.std(), rel=0.05)
