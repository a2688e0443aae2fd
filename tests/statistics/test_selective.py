"""Promises of risk and coverage, on re-splits of the scores of a real classifier."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from imgcls.statistics.selective import (
    coverage_interval,
    images_for_sets,
    images_needed,
    risk_threshold,
    set_threshold,
    smallest_risk,
)

SPLITS = 300
ALLOWED = 0.09  # share of violations, for a promise with 95 % certainty


class Table(NamedTuple):
    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]
    of_truth: NDArray[np.float64]


@pytest.fixture(scope="module")
def scores() -> dict[str, Table]:
    """Scores of noisy digits by a network of one layer: of 300 that it was trained on, and of 1,497 others."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    images = (images + rng.normal(0, 5, images.shape))[order] / 16
    labels = labels[order]
    model = LogisticRegression(C=1.0, max_iter=300).fit(images[:300], labels[:300])
    probs = model.predict_proba(images)
    rows = np.arange(len(probs))
    confidence, correct, of_truth = probs.max(axis=1), probs.argmax(axis=1) == labels, probs[rows, labels]
    return {
        "trained": Table(confidence[:300], correct[:300], of_truth[:300]),
        "others": Table(confidence[300:], correct[300:], of_truth[300:]),
    }


def violations(calibration: Table, others: Table, risk: float, images: int) -> tuple[float, float]:
    """Return in which share of the draws more answers are wrong than promised, and the mean share of answers.

    Args:
        calibration: Images to calibrate on, of which ``images`` are drawn.
        others: Images to predict; those that calibrate are left out, if both tables are the same.
        risk: The promise.
        images: Number of calibration images.
    """
    rng = np.random.default_rng(0)
    broken, answered = 0, 0.0
    for _ in range(SPLITS):
        order = rng.permutation(len(calibration.correct))
        found = risk_threshold(calibration.confidence[order[:images]], calibration.correct[order[:images]], risk)
        rest = order[images:] if calibration is others else np.arange(len(others.correct))
        if found is not None:
            answers = others.confidence[rest] >= found.confidence
            broken += (~others.correct[rest][answers]).mean() > risk
            answered += answers.mean()
    return broken / SPLITS, answered / SPLITS


@pytest.mark.parametrize("risk", [0.05, 0.1])
def test_promised_risk_holds_on_new_images(risk: float, scores: dict[str, Table]) -> None:
    broken, answered = violations(scores["others"], scores["others"], risk, images=700)
    assert broken <= ALLOWED
    assert answered > 0.2  # and the promise is of use


def test_images_that_trained_the_model_cannot_promise(scores: dict[str, Table]) -> None:
    assert scores["trained"].correct.mean() - scores["others"].correct.mean() > 0.1
    broken, _ = violations(scores["trained"], scores["others"], 0.05, images=200)
    assert broken > ALLOWED


def test_images_that_chose_the_threshold_by_their_own_errors_cannot_promise(scores: dict[str, Table]) -> None:
    """The lowest threshold at which the calibration images keep the risk, without a bound, is broken half the time."""
    others = scores["others"]
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(SPLITS):
        order = rng.permutation(len(others.correct))
        chosen, rest = order[:700], order[700:]
        ranked = chosen[np.argsort(-others.confidence[chosen])]
        kept = np.flatnonzero(np.cumsum(~others.correct[ranked]) <= 0.05 * np.arange(1, 701))
        answers = others.confidence[rest] >= others.confidence[ranked[kept[-1]]]
        broken += (~others.correct[rest][answers]).mean() > 0.05
    assert broken / SPLITS > 3 * ALLOWED


def test_coverage_is_what_was_asked_for(scores: dict[str, Table]) -> None:
    others = scores["others"].of_truth
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(SPLITS):
        order = rng.permutation(len(others))
        threshold = set_threshold(others[order[:700]], 0.9) or 0.0
        covered.append((others[order[700:]] >= threshold).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize(("candidates", "holds"), [(1, True), (40, False)])
def test_images_that_chose_among_models_cannot_promise(candidates: int, holds: bool) -> None:
    """The best of 40 equal, unrelated models on the calibration images is worse on new ones."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(SPLITS):
        confidence = 1 - rng.beta(0.5, 3, (candidates, 400)) / 2
        correct = rng.random(confidence.shape) < confidence
        best = correct.mean(axis=1).argmax()
        found = risk_threshold(confidence[best], correct[best], 0.05)
        fresh = 1 - rng.beta(0.5, 3, 20_000) / 2
        broken += found is not None and (1 - fresh[fresh >= found.confidence]).mean() > 0.05
    assert (broken / SPLITS <= 0.05) == holds
    assert (broken / SPLITS <= ALLOWED) == holds


def test_as_many_images_are_needed_as_the_rule_of_three_says() -> None:
    assert [images_needed(risk) for risk in (0.02, 0.05, 0.1)] == [149, 59, 29]
    confidence = np.linspace(0.5, 1, 149)
    assert risk_threshold(confidence[1:], np.ones(148, bool), 0.02) is None
    assert risk_threshold(confidence, np.ones(149, bool), 0.02) == (0.5, 149, 0)
    assert smallest_risk(confidence, np.ones(149, bool)) == 0.02
    assert risk_threshold(confidence, np.zeros(149, bool), 0.5) is None
    assert smallest_risk(confidence[:0], np.ones(0, bool)) is None


def test_risk_that_is_possible_is_rounded_up_to_one_that_works() -> None:
    confidence = np.linspace(1, 0.5, 160)
    correct = np.arange(160) % 7 != 5  # 14 % are wrong, of the surest as well
    assert risk_threshold(confidence, correct, 0.16) is None
    least = smallest_risk(confidence, correct, above=0.16)
    assert least is not None
    assert 0.16 < least < 0.3
    assert f"{least:.2g}" == f"{least:g}"
    assert risk_threshold(confidence, correct, float(f"{least:g}")) is not None
    assert risk_threshold(confidence, correct, least - 0.01) is None
    assert smallest_risk(confidence, np.zeros(160, bool), above=0.5) is None


def test_starts_share_the_error() -> None:
    """Of 160 images, sequences for 10 % start at 39, 78 and 156, since 0.9 ** 39 is below 0.05 / 3."""
    confidence, ranks = np.linspace(1, 0.5, 160), np.arange(160)
    assert risk_threshold(confidence, ranks < 39, 0.1) == (confidence[38], 39, 0)
    assert risk_threshold(confidence, ranks < 38, 0.1) is None
    late = risk_threshold(confidence, (ranks != 10) & (ranks < 80), 0.1)  # the second start
    assert late == (confidence[80], 81, 2)


def test_threshold_ends_where_errors_begin() -> None:
    confidence = np.linspace(1, 0.5, 400)
    correct = np.arange(400) < 200
    found = risk_threshold(confidence, correct, 0.05)
    assert found is not None
    assert (found.answered, found.wrong) == (203, 3)
    assert binom.cdf([3, 4], [203, 204], 0.05) == pytest.approx([0.0081, 0.0231], abs=1e-4)  # of 0.05 / 3 sequences
    assert found.confidence == confidence[202]


def test_images_of_equal_confidence_are_answered_together() -> None:
    correct = np.append(np.ones(300, bool), np.zeros(5, bool))
    found = risk_threshold(np.ones(305), correct, 0.05)
    assert found == (1, 305, 5)
    assert risk_threshold(np.ones(305), correct, 0.02) is None


def test_sets_need_enough_images() -> None:
    assert [images_for_sets(coverage) for coverage in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    truth = np.arange(1, 10) / 10
    assert set_threshold(truth, 0.9) == 0.1
    assert set_threshold(truth[:8], 0.9) is None
    assert set_threshold(np.arange(1, 20) / 20, 0.9) == 0.1


def test_interval_of_the_coverage() -> None:
    low, high = coverage_interval(394, 0.9)
    assert (low, high) == pytest.approx((0.869, 0.928), abs=0.003)
