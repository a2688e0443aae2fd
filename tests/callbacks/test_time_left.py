"""How long a fit still takes, and how lines of an epoch stay within 80 columns."""

import logging
import time
from typing import Any

import pytest

from imgcls.callbacks.csv_history import History
from imgcls.callbacks.time_left import TimeLeft
from imgcls.runtime.progress import duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_first_step_is_not_measured_and_later_epochs_count_whole(clock: list[float]) -> None:
    left = TimeLeft()
    left.epochs = 4
    left.begin_epoch(5)
    for seconds in (60, 1, 1):  # the first waits for the workers to start
        clock[0] += seconds
        left.step()
    assert left.seconds(0) == pytest.approx(3 * 5)
    for _ in range(2):
        clock[0] += 1
        left.step()
    left.end_epoch()
    assert left.epoch_seconds == pytest.approx(5)
    left.begin_epoch(5)
    clock[0] += 2
    assert left.seconds(1) == pytest.approx(2 * 5 + 3)
    clock[0] += 8
    left.end_epoch()
    left.begin_epoch(5)
    assert left.seconds(2) == pytest.approx(2 * 10)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (100, "1:40 min"), (3599.7, "1:00:00 h"), (37230, "10:20:30 h")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_line_of_an_epoch_is_shortened_to_80_columns(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    monkeypatch.setattr(logging.getLogger("imgcls"), "propagate", True)
    trainer: Any = None
    history = History(None, "validation_f1_score")
    row = {"epoch": 98, "train_loss": 12.34567, "validation_loss": 2.34567, "validation_f1_score": 0.87654}
    history.on_train_start(trainer, trainer)
    clock[0] += 4000
    history._print(row, 100)
    assert caplog.messages == ["epoch 99/100  train_loss 12.35  validation: loss 2.35, f1_score 0.88  1:06:40 h"]
