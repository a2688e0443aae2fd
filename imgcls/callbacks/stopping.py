"""When a run stops: after ``trainer.max_steps``, by early stopping on resume, or before its first step."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class StepLimit(Callback):
    """Stop a run after ``trainer.max_steps``, and validate if its epoch is one that validates.

    Replaces ``max_steps`` of Lightning 2.6, with which every resume counts as one from within an epoch, so that the
    end of the checkpoint's complete epoch is run a second time.

    Args:
        max_steps: Optimizer steps.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after the last step."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True


class Patience(Callback):
    """Restore the patience of the run's callbacks on resume, since Lightning 2.6 loads that of the checkpoint."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.configured = [(item, item.patience) for item in callbacks if isinstance(item, EarlyStopping)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the patience after the checkpoint is loaded, and forget an earlier stop."""
        for stopping, patience in self.configured:
            stopping.patience, stopping.stopped_epoch = patience, 0
            stopping.stopping_reason, stopping.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None


class StopBeforeTraining(Callback):
    """End ``fit`` after ``on_fit_start``: the checkpoint is loaded and earlier callbacks have run, no step is taken."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        trainer.should_stop = True
