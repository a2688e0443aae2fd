"""Patience: early stopping of a run that goes on waits as long as it is configured to."""

from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class Patience(Callback):
    """Gives early stopping its patience back, for which Lightning takes that of the checkpoint without a word.

    Args:
        callbacks: The callbacks of the run.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.configured = [(item, item.patience) for item in callbacks if isinstance(item, EarlyStopping)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set it, now that the checkpoint is read; and forget that the run was stopped once."""
        for stopping, patience in self.configured:
            stopping.patience, stopping.stopped_epoch = patience, 0
            stopping.stopping_reason, stopping.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
