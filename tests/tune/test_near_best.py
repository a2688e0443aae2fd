"""Which trials cannot be distinguished from the best one."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from imgcls.tune.near_best import NearBest, near_best, sentences
from tests.helpers.given_answers import answers, write_run

LABELS = np.arange(400) % 2


def right(wrong: int, seed: int = 0) -> NDArray[np.bool_]:
    """All right but so many images, which are drawn."""
    found = np.ones(len(LABELS), dtype=bool)
    found[np.random.default_rng(seed).permutation(len(LABELS))[:wrong]] = False
    return found


def trial(folder: Path, probs: NDArray[np.float64], labels: NDArray[Any] = LABELS) -> Path:
    """Write the predictions of a trial, and the values that its validation logged."""
    write_run(folder, labels, probs, split="validation")
    if labels.ndim == 1:
        values = {"recall_of_dogs": float((probs.argmax(axis=1) == labels)[labels == 1].mean())}
        values |= {"loss": log_loss(labels, probs), "auroc": roc_auc_score(labels, probs[:, 1])}
        values |= {"accuracy": float((probs.argmax(axis=1) == labels).mean())}
        values |= {"f1_score": f1_score(labels, probs.argmax(axis=1), average="macro")}
    else:
        values = {"accuracy": float(((probs > 0.5) == labels).mean())}
    record = {f"validation_{name}": float(np.float32(value)) for name, value in values.items()}
    (folder / "validation_results.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def folders(tmp_path: Path, wrong: list[int]) -> dict[int, Path]:
    """Trials with so many wrong predictions each, on images drawn for each."""
    return {
        number: trial(tmp_path / f"{number}", answers(LABELS, right(count, number)))
        for number, count in enumerate(wrong)
    }


def compared(given: dict[int, Path], best: int, metric: str, *, higher_is_better: bool = True) -> NearBest:
    found = near_best(given, best, f"validation_{metric}", higher_is_better=higher_is_better)
    assert found is not None
    return found


@pytest.mark.parametrize("metric", ["accuracy", "f1_score"])
def test_clearly_worse_trials_are_worse(tmp_path: Path, metric: str) -> None:
    found = compared(folders(tmp_path, [38, 36, 90, 37]), 1, metric)
    assert found.worse == {0: False, 2: True, 3: False}
    assert found.value == pytest.approx(1 - 36 / 400, abs=0.001)
    assert 1 - 44 / 400 < found.expected < found.value
    first, second = sentences(found)
    assert (
        first == f"Trials 0, 3 cannot be distinguished from trial 1, the best one, on 400 validation images ({metric})"
    )
    assert second.startswith("The best of 4 trials looks better than it is, since these images chose it: expect ")
    assert second.endswith("on others, not 0.910")


def probs_of(wrong: int, doubt: float, seed: int) -> NDArray[np.float64]:
    """Probabilities of which so many are wrong, with this probability of the class that is not predicted."""
    given = answers(LABELS, right(wrong, seed)).argmax(axis=1)
    return np.where(np.arange(2) == given[:, None], 1 - doubt, doubt)


def test_a_search_for_the_loss_compares_the_loss(tmp_path: Path) -> None:
    """The best trial by the loss has more mistakes than one that is sure of its mistakes."""
    trials = {0: (90, 0.3), 1: (30, 1e-6), 2: (95, 0.3)}
    given = {number: trial(tmp_path / f"{number}", probs_of(*each, number)) for number, each in trials.items()}
    found = compared(given, 0, "loss", higher_is_better=False)
    assert found.worse == {1: True, 2: False}
    assert found.value == pytest.approx(log_loss(LABELS, probs_of(90, 0.3, 0)))
    assert found.value < found.expected < found.value + 0.1
    assert "on 400 validation images (loss)" in sentences(found)[0]
    # by accuracy, trial 1 is the best, and the others are worse
    assert compared(given, 1, "accuracy").worse == {0: True, 2: True}


def test_a_trial_with_the_better_score_is_not_worse(tmp_path: Path) -> None:
    """Trained in half precision, another epoch or trial may be the best than in the evaluation."""
    assert compared(folders(tmp_path, [90, 30]), 0, "accuracy").worse == {1: False}


def test_auroc(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {}
    for number, noise in enumerate((0.5, 0.52, 2.0)):
        score = 1 / (1 + np.exp(-(LABELS * 2 - 1 + rng.normal(0, noise, len(LABELS)))))
        given[number] = trial(tmp_path / f"{number}", np.stack([1 - score, score], axis=1))
    found = compared(given, 0, "auroc")
    assert found.worse == {1: False, 2: True}


def test_multi_label_accuracy_is_that_of_all_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 2)) < 0.4).astype(np.int64)
    given = {
        number: trial(tmp_path / f"{number}", np.clip(labels + rng.normal(0, noise, labels.shape), 0, 1), labels)
        for number, noise in enumerate((0.3, 0.3, 0.8))
    }
    best = max(
        (0, 1),
        key=lambda number: json.loads((given[number] / "validation_results.json").read_text())["validation_accuracy"],
    )
    found = compared(given, best, "accuracy")
    assert found.worse == {1 - best: False, 2: True}


@pytest.mark.parametrize("metric", ["validation_recall_of_dogs", "validation_other", "train_loss"])
def test_a_metric_that_the_predictions_do_not_give_is_not_compared(
    tmp_path: Path, metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert near_best(folders(tmp_path, [38, 90]), 0, metric, higher_is_better=True) is None
    assert (
        f"Whether other trials are worse by more than chance is unknown: {metric} is none of the scores" in caplog.text
    )


def test_a_best_trial_may_stand_alone(tmp_path: Path) -> None:
    found = compared(folders(tmp_path, [100, 10]), 1, "accuracy")
    first, second = sentences(found)
    assert first.startswith("Trial 1 is better than every other one by more than chance on 400")
    assert second == "The best of 2 trials hardly looks better than it is: expect accuracy 0.975 on other images"


def test_many_trials_are_counted(tmp_path: Path) -> None:
    found = compared(folders(tmp_path, [40] * 11), 3, "loss", higher_is_better=False)
    assert sentences(found)[0].startswith("Trials 0, 1, 2, 4, 5, 6, 7, 8 and 2 more cannot be distinguished")


def test_trials_without_predictions_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    known = folders(tmp_path, [40, 40, 40])
    trial(tmp_path / "other", answers(LABELS, LABELS == 0)[:300], LABELS[:300])
    found = compared({**known, 3: tmp_path / "none", 4: tmp_path / "other"}, 0, "accuracy")
    assert list(found.worse) == [1, 2]
    metric = "validation_accuracy"
    assert near_best({**known, 3: tmp_path / "none"}, 3, metric, higher_is_better=True) is None
    assert "trial 3, the best one, has no validation_predictions.csv" in caplog.text
    caplog.clear()
    assert near_best({0: known[0], 3: tmp_path / "none"}, 0, metric, higher_is_better=True) is None
    assert "no other trial has predictions of the same images" in caplog.text
    caplog.clear()
    assert near_best({0: known[0]}, 0, metric, higher_is_better=True) is None
    assert caplog.text == ""
