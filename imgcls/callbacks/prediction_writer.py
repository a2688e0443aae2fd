"""PredictionsWriter: write a row per input image, and its features, while predicting."""

import logging
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from imgcls.predictions.feature_file import FeatureFile
from imgcls.predictions.prediction_file import PredictionFile
from imgcls.runtime.host_copy import Deferred
from imgcls.runtime.process_parts import ProcessParts
from imgcls.runtime.resumable_output import Unfinished

log = logging.getLogger(__name__)


class PredictionsWriter(Callback):
    """Write the rows of a table of predictions, and of an array of features.

    Values are copied from a GPU while it computes the next batch. One process can be resumed when it is stopped, see
    :class:`Unfinished`; several processes write parts.

    Args:
        table: The table.
        features: The array; None to write none.
        about: What a resumed command must agree in: option -> plain value.
        total: Number of images.
    """

    def __init__(
        self, table: PredictionFile, features: FeatureFile | None, about: Mapping[str, Any], total: int
    ) -> None:
        self.table = table
        self.features = features
        outputs = [table.output] if features is None else [table.output, features.output]
        self.unfinished = Unfinished(outputs, about, total)
        self._parts = ProcessParts(outputs)
        self._written = Deferred(self._write)
        self._is_open = False

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the files."""
        pl_module.keeps_features = self.features is not None  # type: ignore[assignment]
        self._is_open = trainer.world_size == 1
        table, *others = self.unfinished.open() if self._is_open else self._parts.open(trainer)
        self.table.begin(table, trainer.is_global_zero, self.unfinished.progress)
        if self.features is not None:
            self.features.begin(others[0], trainer.is_global_zero)

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Start to copy the values of a batch, and write those of the batch before."""
        features = None if self.features is None else pl_module.features
        self._written.put(batch["path"], batch["error"], outputs, features)

    def _write(self, paths: list[str], errors: list[str], probs: Tensor, features: Tensor | None) -> None:
        if self.features is not None and features is not None:
            self.features.add(features, errors)
        self.table.add(paths, probs, errors)
        if self._is_open:
            self.unfinished.advance(self.table.progress)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the files."""
        self._written.flush()
        if self._is_open:
            self.unfinished.finish()
            self._is_open = False
        else:
            self._parts.finish(trainer)
            self.table.join()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep the rows of one process, remove those of several."""
        self._parts.abandon(exception)
        if not self._is_open:
            return
        self._is_open = False
        if rows := self.unfinished.abandon():
            done = f"{rows:,} of {self.unfinished.total:,} images are predicted"
            log.info("%s; to resume, type the same command with --resume", done)
