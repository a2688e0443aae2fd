"""PredictionsWriter: write one CSV row per input image while predicting."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from imgcls.callbacks.prediction_file import PredictionFile


class PredictionsWriter(Callback):
    """Write the rows of :class:`PredictionFile`, without labels.

    Args:
        path: The CSV file.
        class_names: Names of the model's outputs.
        thresholds: Multi-label: the threshold of each class; None for single-label models.
    """

    def __init__(self, path: Path, class_names: list[str], thresholds: list[float] | None = None) -> None:
        self.file = PredictionFile(path, class_names, thresholds)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the file and write the heading."""
        self.file.open(trainer)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a batch."""
        self.file.add(batch["path"], outputs, batch["error"])

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the file; merge the parts of several processes."""
        self.file.close(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the incomplete file."""
        self.file.discard(exception)
