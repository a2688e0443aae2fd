"""DataWaitMonitor: log when the loader, not the model, limits the speed of training."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)

_MUCH = 0.3  # fraction of an epoch
_FEW = 10  # steps after which the loader workers have started


class DataWaitMonitor(Callback):
    """Measure the time that the steps of an epoch wait for their batch; log once if it is large.

    Args:
        cached: Whether decoded images already come from the cache.
    """

    def __init__(self, cached: bool) -> None:
        self.cached = cached
        self.waited = 0.0
        """Seconds of the epoch spent waiting."""
        self._is_logged = False
        self._steps = 0
        self._since = self._start = 0.0
        self._busy = False  # with something else than data since the last step

    @property
    def seconds(self) -> float:
        """Seconds from the first step of the epoch to the end of the last one."""
        return max(self._since - self._start, 0.0)

    @property
    def share(self) -> float:
        """Fraction of the epoch spent waiting, 0 to 1."""
        return self.waited / self.seconds if self.seconds else 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the measurement."""
        self._steps, self.waited = 0, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add the time since the last step, except for the first batch, which waits for the workers to start."""
        now = time.perf_counter()
        if not self._steps:
            self._start = now
        elif not self._busy:
            self.waited += now - self._since
        self._busy = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start waiting for the next batch."""
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
        """Log the share and a remedy, once."""
        if self._steps > _FEW and self.share > _MUCH and not self._is_logged and trainer.is_global_zero:
            self._is_logged = True
            workers = "more --data.num_workers"
            remedy = workers if self.cached else f"--data.create_dataset true, or {workers}"
            log.info("waiting for data %.0f %% of the time; try %s", 100 * self.share, remedy)
