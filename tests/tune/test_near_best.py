"""Which trials cannot be distinguished from the best one."""

from pathlib import Path

import numpy as np
import pytest

from imgcls.tune.near_best import near_best, sentences
from tests.helpers.given_answers import answers, write_run

LABELS = np.arange(400) % 2


def folders(tmp_path: Path, wrong: list[int]) -> dict[int, Path]:
    """Trials with so many wrong answers each, on images drawn for each."""
    found = {}
    for number, count in enumerate(wrong):
        right = np.ones(len(LABELS), dtype=bool)
        right[np.random.default_rng(number).permutation(len(LABELS))[:count]] = False
        found[number] = tmp_path / f"{number}"
        write_run(found[number], LABELS, answers(LABELS, right), split="validation")
    return found


@pytest.mark.parametrize("metric", ["validation_accuracy", "validation_f1_score"])
def test_clearly_worse_trials_are_worse(tmp_path: Path, metric: str) -> None:
    found = near_best(folders(tmp_path, [38, 36, 90, 37]), 1, metric)
    assert found is not None
    assert found.worse == {0: False, 2: True, 3: False}
    assert found.value == pytest.approx(1 - 36 / 400, abs=0.001)
    assert 1 - 44 / 400 < found.expected < found.value
    first, second = sentences(found)
    name = "accuracy" if metric == "validation_accuracy" else "macro F1"
    assert first == f"Trials 0, 3 cannot be distinguished from trial 1, the best one, on 400 validation images ({name})"
    assert second.startswith("The best of 4 trials looks better than it is, since these images chose it: expect ")
    assert second.endswith("on others, not 0.910")


def test_a_best_trial_may_stand_alone(tmp_path: Path) -> None:
    found = near_best(folders(tmp_path, [100, 10]), 1, "validation_accuracy")
    assert found is not None
    first, second = sentences(found)
    assert first.startswith("Trial 1 is better than every other one by more than chance on 400")
    assert second == "The best of 2 trials hardly looks better than it is: expect accuracy 0.975 on other images"


def test_many_trials_are_counted(tmp_path: Path) -> None:
    found = near_best(folders(tmp_path, [40] * 11), 3, "validation_loss")
    assert found is not None
    assert sentences(found)[0].startswith("Trials 0, 1, 2, 4, 5, 6, 7, 8 and 2 more cannot be distinguished")


def test_unknown_answers_are_left_out(tmp_path: Path) -> None:
    known = folders(tmp_path, [40, 40, 40])
    write_run(tmp_path / "other", LABELS[:300], answers(LABELS, LABELS == 0)[:300], split="validation")
    found = near_best({**known, 3: tmp_path / "none", 4: tmp_path / "other"}, 0, "validation_accuracy")
    assert found is not None
    assert list(found.worse) == [1, 2]
    assert near_best({**known, 3: tmp_path / "none"}, 3, "validation_accuracy") is None
    assert near_best({0: known[0]}, 0, "validation_accuracy") is None
