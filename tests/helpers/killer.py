"""Callbacks that end a process as a power cut would, or fail in other ways, at a stated place."""

import io
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import IO

import lightning.pytorch as pl
import numpy as np
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


class EndPrediction(Callback):
    """Ends a prediction before a batch, by a signal to its own process.

    Args:
        batch: The batch, from 0.
        number: The signal.
    """

    def __init__(self, batch: int, number: int = signal.SIGKILL) -> None:
        self.batch = batch
        self.number = number

    def on_predict_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


class StopAfter(Callback):
    """Ends the training early, in good order.

    Args:
        epochs: The epochs after which it ends.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


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


class KillOnce(Callback):
    """Kills this very process in an epoch of one trial of a search, the first time that it comes there."""

    def __init__(self, trial: int, epoch: int, mark: str) -> None:
        self.trial = trial
        self.epoch = epoch
        self.mark = Path(mark)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        here = Path(trainer.default_root_dir).name == f"trial_{self.trial:04d}"
        if here and trainer.current_epoch == self.epoch and not self.mark.exists():
            self.mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)


class Faulty(Callback):
    """Fails in the way that is asked for."""

    def __init__(self, kind: str = "none") -> None:
        self.kind = kind

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.kind == "raise":
            raise ValueError("a bad combination")
        if self.kind == "memory":
            np.ones(2**50)
        if self.kind == "not a number":
            for parameter in pl_module.parameters():
                parameter.data.fill_(float("nan"))
        screening = Path(trainer.default_root_dir).name == "screen"
        if self.kind == "interrupt" and not screening:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.kind == "weights" and batch_idx == 1:
            for parameter in pl_module.parameters():
                parameter.data.fill_(float("nan"))


class FillDisk(Callback):
    """Leaves no room on the disk of the run folder, from an epoch on.

    Args:
        epoch: The epoch, from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            fill(Path(trainer.default_root_dir))


def fill(folder: Path) -> None:
    """Write until there is no room."""
    with suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


class RemoveRun(Callback):
    """Removes the run folder within an epoch.

    Args:
        epoch: The epoch, from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            shutil.rmtree(trainer.default_root_dir)
