"""TrainPredictions: mean probabilities of each training image over the epochs of a fit, without a further pass."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from imgcls.callbacks.metrics_logger import usable_outputs
from imgcls.data.datamodule import ImageDataModule
from imgcls.predictions.prediction_file import PredictionFile
from imgcls.runtime.atomic_files import replacing
from imgcls.runtime.distributed import gather
from imgcls.runtime.host_copy import Deferred
from imgcls.runtime.optional_part import optional_part

_VALUES = 5_000_000  # images times classes: 20 MB of sums


class TrainPredictions(Callback):
    """Write a row per training image, with the mean of its probabilities in the training steps.

    The first epoch of the run is left out. A network learns what the images of a class have in common before it learns
    single wrong labels (Arpit et al. 2017), so that the mean over the epochs contradicts them, also where the last
    epoch does not (Swayamdipta et al. 2020, "Dataset cartography"; Pleiss et al. 2020, "Identifying mislabeled data
    using the area under the margin ranking").

    No file is written of a run of one epoch, with multi-label data, a stream, MixUp or CutMix, a model whose steps
    return no logits, or more than 5 million probabilities. A resumed run counts its own epochs.

    Args:
        path: The CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, int] = {}
        self._sums = np.zeros((0, 0), np.float32)
        self._counts = np.zeros(0, np.int64)
        self._added = Deferred(self._add)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prepare for the images of the run."""
        data, names = trainer.datamodule, getattr(pl_module, "class_names", [])  # type: ignore[attr-defined]
        self._rows, self._added = {}, Deferred(self._add)
        mixes = getattr(getattr(pl_module, "mix_config", None), "mixes", False)
        if not isinstance(data, ImageDataModule) or data.streams or data.multilabel or mixes:
            return
        split = data.split("train")
        if 0 < len(split) * len(names) <= _VALUES:
            self._rows = {split.path(index): index for index in range(len(split))}
            self._sums = np.zeros((len(split), len(names)), np.float32)
            self._counts = np.zeros(len(split), np.int64)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start to copy the probabilities of a batch, and add those of the batch before."""
        if not self._rows or trainer.current_epoch == 0:
            return
        found, size = usable_outputs(outputs, batch)
        paths = batch.get("path") if isinstance(batch, Mapping) else None
        logits = found.get("logits")
        if logits is None or logits.shape[1] != self._sums.shape[1] or not isinstance(paths, list):
            return
        rows = [self._rows[path] for path in paths if path in self._rows]
        if len(rows) == len(paths) == size:  # else of a user's own loader
            self._added.put(rows, torch.softmax(logits.float(), 1))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, if there was a second epoch."""
        self._added.flush()
        if not self._rows:
            return
        sums, counts = (np.sum(each, axis=0) for each in zip(*gather((self._sums, self._counts)), strict=True))
        if trainer.is_global_zero and counts.any():
            with optional_part(f"No {self.path.name}", "the report cannot use it to find wrong labels"):
                self._write(trainer.datamodule, sums, counts)  # type: ignore[attr-defined]

    def _add(self, rows: list[int], probs: Tensor) -> None:
        np.add.at(self._sums, rows, probs.numpy())  # an image may be drawn twice
        np.add.at(self._counts, rows, 1)

    def _write(self, data: ImageDataModule, sums: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        split, seen = data.split("train"), np.flatnonzero(counts)
        table = PredictionFile(self.path, data.class_names, None, has_labels=True)
        with replacing(self.path) as file:
            table.begin(file, is_first=True)
            labels = [[label] for label in split.label_array[seen].tolist()]
            probs = torch.from_numpy(sums[seen] / counts[seen, None])
            table.add([split.path(row) for row in seen.tolist()], probs, [""] * len(seen), labels)
