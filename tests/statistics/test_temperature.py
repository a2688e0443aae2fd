"""The temperature: recovered, kept only where it helps, and never an order of the classes changed."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import log_loss

from imgcls.statistics.temperature import fit_temperature

Draw = tuple[NDArray[np.float64], NDArray[np.int64]]


def draw(images: int, temperature: float, seed: int, classes: int = 4) -> Draw:
    """Draw labels by the softmax of logits, and return logits that are ``temperature`` times too sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.2, (images, classes))
    above = softmax(logits, axis=1).cumsum(axis=1) > rng.random((images, 1))
    return logits * temperature, above.argmax(axis=1)


@pytest.mark.parametrize(("images", "error"), [(50, 0.18), (400, 0.07)])
@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_temperature_is_recovered(true: float, images: int, error: float) -> None:
    found = np.array([fit_temperature(*draw(images, true, seed)).values for seed in range(100)])
    assert np.median(np.abs(np.log(found / true))) <= error
    if true == 1:
        assert (found == 1).mean() >= 0.8


def test_fresh_log_loss_is_not_worse_on_average() -> None:
    changes = []
    for seed in range(60):
        (logits, labels), fresh = draw(50, 2.0, seed), draw(4000, 2.0, 1000 + seed)
        cooled = softmax(fresh[0] / fit_temperature(logits, labels).values, axis=1)
        changes.append(log_loss(fresh[1], cooled) - log_loss(fresh[1], softmax(fresh[0], axis=1)))
    assert np.mean(changes) < -0.1


def test_result_says_what_was_measured() -> None:
    logits, labels = draw(400, 2.0, 0)
    found = fit_temperature(logits, labels)
    assert (found.reason, found.images) == ("", 400)
    assert found.before == pytest.approx(log_loss(labels, softmax(logits, axis=1)), rel=1e-12)
    in_sample = log_loss(labels, softmax(logits / found.values, axis=1))
    assert in_sample < found.after < in_sample + 0.01


def test_leave_one_out_is_close_to_fitting_again_without_each_image() -> None:
    logits, labels = draw(40, 2.0, 3)
    found = fit_temperature(logits, labels)
    kept = [np.arange(40) != index for index in range(40)]
    without = np.array([fit_temperature(logits[rows], labels[rows]).values for rows in kept])
    left_out = -log_softmax(logits / without[:, None], axis=1)[np.arange(40), labels]
    assert found.after == pytest.approx(left_out.mean(), abs=2e-3)


def test_order_of_the_images_does_not_matter() -> None:
    logits, labels = draw(80, 1.5, 1)
    order = np.random.default_rng(0).permutation(80)
    first, second = fit_temperature(logits, labels), fit_temperature(logits[order], labels[order])
    assert first.reason == second.reason
    assert second.values == pytest.approx(first.values, rel=1e-6)


def test_predicted_classes_stay() -> None:
    logits, labels = draw(200, 2.0, 5)
    found = fit_temperature(logits, labels)
    assert found.values != 1
    assert ((logits / found.values).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_images_without_an_error_make_probabilities_as_certain_as_their_number_allows() -> None:
    labels = np.arange(60) % 3
    logits = np.eye(3)[labels] * 2.0 + np.random.default_rng(0).normal(0, 0.1, (60, 3))
    found = fit_temperature(logits, labels)
    assert softmax(logits, axis=1).max(axis=1).mean() == pytest.approx(0.79, abs=0.01)
    confidence = softmax(logits / found.values, axis=1).max(axis=1).mean()
    assert confidence == pytest.approx(0.96, abs=0.02)
    assert confidence < 61 / 62


@pytest.mark.parametrize(
    ("labels", "logits", "reason"),
    [
        ([1] * 30, 1.0, "all images have one class"),
        ([0], 1.0, "there are too few images"),
        ([0, 1] * 15, np.nan, "there are too few images"),
    ],
)
def test_what_cannot_be_fitted_is_1(labels: list[int], logits: float, reason: str) -> None:
    found = fit_temperature(np.full((len(labels), 3), logits), np.array(labels))
    assert (float(found.values), found.reason, found.before == found.after) == (1, reason, True)


def multilabel(images: int, temperatures: list[float], seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (images, len(temperatures)))
    return logits * temperatures, rng.random(logits.shape) < expit(logits)


def test_multilabel_classes_share_a_temperature() -> None:
    found = fit_temperature(*multilabel(60, [2.0, 2.0, 2.0]))
    assert found.values.shape == ()
    assert found.values == pytest.approx(2, rel=0.35)


def test_frequent_class_gets_a_temperature_of_its_own() -> None:
    logits, labels = multilabel(500, [1.0, 4.0, 1.0])
    labels[:, 2] = np.arange(500) < 40  # fewer than 50
    found = fit_temperature(logits, labels)
    assert found.values.shape == (3,)
    assert found.values[1] == pytest.approx(4, rel=0.25)
    assert found.values[2] not in {found.values[0], found.values[1]}
    assert found.after < found.before


def test_more_logits_than_needed_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgcls.statistics.temperature._MOST_VALUES", 2000)
    logits, labels = draw(3000, 2.0, 0)
    found = fit_temperature(logits.astype(np.float32), labels)
    assert found.images == 500
    assert found.values == pytest.approx(2, rel=0.2)
