"""A callback that ends the process as a power cut would, at a stated place."""

import io
import os
import signal
from typing import IO

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

_save = torch.save


class Killer(Callback):
    """Sends SIGKILL to its own process before a training batch.

    Args:
        epoch: The epoch, from 0.
        batch: The batch, from 0.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        self.place = (epoch, batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


class KillInWrite(Callback):
    """Sends SIGKILL to its own process when half of an epoch's checkpoint is written.

    Args:
        epoch: The epoch, from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            torch.save = _write_half  # type: ignore[assignment]


def _write_half(content: object, file: IO[bytes]) -> None:
    buffer = io.BytesIO()
    _save(content, buffer)
    file.write(buffer.getvalue()[: buffer.tell() // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
