"""WithinEpoch: save last.ckpt within an epoch, every few minutes and when a signal ends the run."""

import math
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.runtime.distributed import gather
from imgcls.runtime.lightning_loops import forget_interrupted_validation, prepare_resume
from imgcls.runtime.signals import Hold, Stopped, heard, stop, stop_if_heard

# A collective decision makes each process wait for its GPU. Every eighth batch is often enough to react to a signal
# within seconds, and no step is lost, because the run ends and saves between two steps. With gradient accumulation,
# every optimizer step is preceded by a decision: eight accumulated steps could exceed a cluster's grace period.
_BATCHES = 8


class WithinEpoch(Callback):
    """Save between two optimizer steps, from where a resumed run is bit-identical to an uninterrupted one.

    During training a signal is handled at the next such point: before a step, while waiting for a batch, or in a
    validation, which is repeated on resume. Distributed processes decide together, on GPUs every few batches.

    Args:
        saver: Saves the checkpoint.
        minutes: Minutes between two checkpoints; None or 0: save within an epoch only on a signal.
    """

    def __init__(self, saver: CheckpointSaver, minutes: float | None) -> None:
        self.saver = saver
        self._seconds = 60 * minutes if minutes else math.inf
        self._next = math.inf
        self._hold = Hold()
        self._is_training = False
        self._is_validating = False
        self._saved = -1  # step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to postpone signals to the points where the run can end."""
        forget_interrupted_validation(trainer)
        self._note_saved(trainer)
        self._is_training = True
        self._hold.begin()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle a signal between two epochs; the last one is saved."""
        if trainer.world_size == 1:
            stop_if_heard()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop or save, if due, before the first batch of an optimizer step."""
        self._hold.waits = False
        every = trainer.accumulate_grad_batches
        if trainer.world_size > 1 and trainer.strategy.root_device.type == "cuda":
            every *= max(_BATCHES // every, 1)
        if batch_idx % every:
            return
        wanted = bool(heard()) or (trainer.is_global_zero and time.monotonic() >= self._next)
        if not trainer.strategy.reduce_boolean_decision(wanted, all=False):
            return
        if number := max(gather(heard())):
            stop(number)
        self._save(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step, let a signal end the wait for the next batch or a validation."""
        stepped = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        self._hold.waits = stepped and trainer.world_size == 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that a validation runs; one at a step limit cannot be interrupted, since no resume repeats it."""
        self._is_validating = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        self._hold.waits = self._hold.waits and not trainer.should_stop

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the validation is over."""
        self._is_validating = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let no signal interrupt saving the epoch."""
        self._hold.waits = False
        self._note_saved(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop postponing signals."""
        self._release()
        stop_if_heard()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the steps since the last checkpoint if a signal ends the run."""
        if self._is_training and isinstance(exception, Stopped) and trainer.global_step != self._saved:
            self._save(trainer)
        self._release()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make a resumed run repeat an unfinished validation and a step that has not started."""
        prepare_resume(checkpoint, self._is_validating)

    def _save(self, trainer: pl.Trainer) -> None:
        self.saver.save_within_epoch(trainer)
        self._note_saved(trainer)

    def _note_saved(self, trainer: pl.Trainer) -> None:
        self._saved, self._next = trainer.global_step, time.monotonic() + self._seconds

    def _release(self) -> None:
        self._is_training = self._hold.waits = False
        self._hold.end()
