"""LogitCollector: keep the logits and labels of the validation images."""

from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from imgcls.callbacks.metrics_logger import usable_outputs
from imgcls.runtime.distributed import gather


class Collected(NamedTuple):
    """Outputs of a validation.

    Args:
        logits: ``(N, C)``, float32.
        labels: ``(N,)`` class indices, int64; multi-label: ``(N, C)``, 0 or 1.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


class LogitCollector(Callback):
    """Keep what the steps of one validation return, of all processes."""

    def __init__(self) -> None:
        self.collected: Collected | None = None
        """None if a step returns no logits, or there is no image."""
        self._batches: list[Collected] = []
        self._is_complete = True

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep a batch."""
        found, size = usable_outputs(outputs, batch)
        if size and "logits" not in found:
            self._is_complete = False
        elif size:
            labels = found["label"].to("cpu", torch.int64).numpy()
            self._batches.append(Collected(found["logits"].float().cpu().numpy(), labels))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the batches."""
        batches = [batch for each in gather(self._batches) for batch in each]
        if all(gather(self._is_complete)) and batches:
            self.collected = Collected(*map(np.concatenate, zip(*batches, strict=True)))
