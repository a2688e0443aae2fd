"""What counts as waiting for data."""

import time
from typing import Any

import lightning.pytorch as pl
import pytest

from imgcls.callbacks.data_wait_monitor import DataWaitMonitor

STEPS, PAUSE = 15, 0.01


def epoch(pause: str) -> DataWaitMonitor:
    """An epoch that pauses between its steps, for data or for another reason."""
    monitor, trainer = DataWaitMonitor(cached=False), pl.Trainer(logger=False, enable_checkpointing=False)
    model: Any = None
    monitor.on_train_epoch_start(trainer, model)
    for number in range(STEPS):
        monitor.on_train_batch_start(trainer, model, {}, number)
        time.sleep(PAUSE)
        monitor.on_train_batch_end(trainer, model, {}, {}, number)
        if pause == "validation":
            monitor.on_validation_start(trainer, model)
        if pause == "checkpoint":
            monitor.on_save_checkpoint(trainer, model, {})
        time.sleep(PAUSE)
    monitor.on_train_epoch_end(trainer, model)
    return monitor


@pytest.mark.parametrize("pause", ["validation", "checkpoint"])
def test_other_pauses_are_no_waiting_for_data(pause: str) -> None:
    assert epoch("data").share == pytest.approx(0.5, abs=0.25)
    assert epoch(pause).share == 0
