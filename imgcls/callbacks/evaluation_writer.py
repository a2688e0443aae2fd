"""EvaluationWriter: write a row per evaluated image, and count the images of each class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from imgcls.callbacks.metrics_logger import usable_outputs
from imgcls.errors import RunError
from imgcls.metrics.class_counts import ClassCounts
from imgcls.predictions.prediction_file import PredictionFile
from imgcls.runtime.distributed import gather
from imgcls.runtime.host_copy import Deferred
from imgcls.runtime.process_parts import ProcessParts


class EvaluationWriter(Callback):
    """Write the rows of :class:`PredictionFile` with labels, from the outputs that metrics use, too.

    Values are copied from a GPU while it computes the next batch. Each process has its share of the images.

    Args:
        path: The CSV file; None to count only. The first process decides.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.counts: ClassCounts | None = None
        """Images of each class, of all processes; None if a step does not return logits."""
        self.missing = ""
        """Why there are no rows; empty if there are."""
        self._thresholds: list[float] | None = None
        self._file: PredictionFile | None = None
        self._parts: ProcessParts | None = None
        self._written = Deferred(self._write)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the file."""
        class_names: list[str] = pl_module.class_names  # type: ignore[assignment]
        self._thresholds = pl_module.thresholds  # type: ignore[assignment]
        self.counts, self._written = ClassCounts(class_names), Deferred(self._write)
        self.path = trainer.strategy.broadcast(self.path)
        if self.path is not None:
            self._file = PredictionFile(self.path, class_names, self._thresholds, has_labels=True)
            self._parts = ProcessParts([self._file.output])
            self._file.begin(self._parts.open(trainer)[0], trainer.is_global_zero)

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Start to copy the values of a batch, and write those of the batch before."""
        found, size = usable_outputs(outputs, batch)
        if not size or self.missing:  # no image of the batch could be read
            return
        paths = batch.get("path") if isinstance(batch, Mapping) else None
        if "logits" not in found:
            self.missing = "its step returns no 'logits'"
            return
        if not isinstance(paths, list) or len(paths) != size:
            self.missing = "its batches have no 'path'"
            return
        probs = torch.softmax(found["logits"], 1) if self._thresholds is None else torch.sigmoid(found["logits"])
        self._written.put(paths, probs, found["label"])

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the file."""
        self._written.flush()
        self.missing = next(filter(None, gather(self.missing)), "")
        if self._parts is not None and self.missing:
            self._parts.abandon(RunError(self.missing))
        elif self._parts is not None:
            self._parts.finish(trainer)
        assert self.counts is not None  # noqa: S101 - made at the start
        first, *others = gather(self.counts)
        for other in others:
            first.merge(other)
        self.counts = None if self.missing else first

    on_test_end = on_validation_end

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the incomplete file."""
        if self._parts is not None:
            self._parts.abandon(exception)

    def _write(self, paths: list[str], probs: Tensor, given: Tensor) -> None:
        assert self.counts is not None  # noqa: S101 - made at the start
        probs = probs if probs.dtype in {torch.float32, torch.float64} else probs.float()  # numpy's
        labels = given.long().numpy()
        if self._thresholds is None:
            classes, predicted = [[index] for index in labels.tolist()], probs.argmax(dim=1).numpy()
        else:
            classes = [np.flatnonzero(row).tolist() for row in labels]
            predicted = (probs > torch.tensor(self._thresholds)).numpy().astype(np.int64)
        finite = probs.isfinite().all(dim=1).numpy()
        self.counts.add(labels[finite], predicted[finite])
        if self._file is not None:
            self._file.add(paths, probs, [""] * len(paths), classes)
