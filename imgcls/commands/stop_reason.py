"""Log why training stopped, if it was not the last epoch."""

import logging
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

log = logging.getLogger(__name__)


def log_stop_reason(trainer: Trainer, options: dict[str, Any]) -> None:
    """Log each rule that stopped a fit early: early stopping, a time limit, ``max_epochs`` before ``max_steps``.

    Args:
        trainer: The Trainer after ``fit``.
        options: Its arguments as configured.
    """
    for item in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(item, EarlyStopping) and item.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            log.info("Stopped early: %s did not improve for %d validations", item.monitor, item.wait_count)
        elif isinstance(item, EarlyStopping) and item.stopping_reason_message:
            log.info("Stopped early: %s", item.stopping_reason_message.replace(" Signaling Trainer to stop.", ""))
        remaining = item.time_remaining() if isinstance(item, Timer) else None
        if remaining is not None and remaining <= 0:
            key = "trainer.max_time" if options["max_time"] is not None else "the duration of Timer"
            log.info("Stopped: %s is over", key)
    epochs, steps = options["max_epochs"], options["max_steps"]
    if trainer.current_epoch == epochs and trainer.global_step < steps:
        log.info(
            "trainer.max_epochs: %d ended the run after %d of max_steps: %d; to reach them, set max_epochs: -1",
            epochs,
            trainer.global_step,
            steps,
        )
