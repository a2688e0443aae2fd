"""What a run logs before its first batch, and the expected time after the first epoch."""

import logging
import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from imgcls.callbacks.time_left import TimeLeft
from imgcls.data.datamodule import ImageDataModule
from imgcls.runtime.progress import duration
from imgcls.runtime.tables import short_path

log = logging.getLogger(__name__)


class RunSummary(Callback):
    """Log the model and its size, the images of a step, and how long the run will take."""

    def __init__(self) -> None:
        self._time_left = TimeLeft()
        self._is_logged = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the model."""
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in pl_module.parameters()]
        total, trained = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
        of_them = "" if trained == total else f", {_in_words(trained)} of them trainable"
        name = getattr(pl_module, "model_name", type(pl_module).__name__)
        log.info("Model: %s, %s parameters%s", short_path(name), _in_words(total), of_them)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the images of a step, now that the loaders are made."""
        self._time_left.begin(trainer)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageDataModule):
            return
        height, width = data.pipelines.sizes.get("train", (0, 0))
        size = f", {height} x {width} pixels" if height else ""
        processes = f" in each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
        steps = trainer.num_training_batches
        count = f"{steps} batch{'es' * (steps != 1)}" if math.isfinite(steps) else "batches"
        log.info("Each epoch: %s of at most %d images%s%s", count, data.batch_size, processes, size)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._time_left.begin_epoch(0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        self._time_left.step()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the expected time, once."""
        self._time_left.end_epoch()
        seconds, epochs = self._time_left.epoch_seconds, self._time_left.epochs - trainer.current_epoch - 1
        if self._is_logged or seconds is None or not 0 < epochs < math.inf:
            return
        self._is_logged = True
        count = f"{epochs:.0f} more epoch{'s' * (round(epochs) != 1)}"
        log.info("Expected: %s for %s, unless the run stops early", duration(max(epochs * seconds, 1)), count)


class EvaluationSummary(Callback):
    """Log the number of images and classes and the image size of an evaluation or prediction."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log it for ``validate``."""
        self._log(trainer, "validation", trainer.num_val_batches)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log it for ``test``."""
        self._log(trainer, "test", trainer.num_test_batches)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log it for ``predict``."""
        self._log(trainer, "predict", trainer.num_predict_batches)

    def _log(self, trainer: pl.Trainer, split: str, batches: list[int | float]) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        size = data.pipelines.sizes.get("eval") if isinstance(data, ImageDataModule) else None
        if size is None:  # a user's own loaders
            return
        rest = len(data.split(split)) - (data.predicted if split == "predict" else 0)
        images = int(min(rest, sum(batches) * data.batch_size * trainer.world_size))
        what = "Prediction" if split == "predict" else split.capitalize()
        numbers = f"{images:,} image{'s' * (images != 1)}, {len(data.class_names)} classes"
        log.info("%s: %s, %d x %d pixels", what, numbers, *size)


def _in_words(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"
