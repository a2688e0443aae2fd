"""WaitingTime: says so where the loader, and not the model, decides how long an epoch takes."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)

_MUCH = 0.3  # share of an epoch
_FEW = 10  # steps that tell nothing: the workers have only just started


class WaitingTime(Callback):
    """Measures how long the steps of an epoch wait for their batch, and says once what would help.

    Args:
        cached: Whether decoded images come from the cache already.
    """

    def __init__(self, cached: bool) -> None:
        self.cached = cached
        self.share: float | None = None
        self._said = False
        self._steps = 0
        self._waited = 0.0
        self._since = self._start = 0.0
        self._busy = False  # with something else than data since the last step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self._steps, self._waited = 0, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add the time since the last step; the first batch of an epoch waits for the workers to start."""
        now = time.perf_counter()
        if not self._steps:
            self._start = now
        elif not self._busy:
            self._waited += now - self._since
        self._busy = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember when the step was done."""
        self._steps += 1
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not count the time of a validation within the epoch."""
        self._busy = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Do not count the time of a checkpoint within the epoch."""
        self._busy = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it, once, where it is much."""
        if self._steps <= _FEW or self._since <= self._start:
            return
        self.share = self._waited / (self._since - self._start)
        if self.share > _MUCH and not self._said and trainer.is_global_zero:
            self._said = True
            workers = "more --data.num_workers"
            remedy = workers if self.cached else f"--data.create_dataset true, or {workers}"
            log.info("waiting for data %.0f %% of the time; try %s", 100 * self.share, remedy)
