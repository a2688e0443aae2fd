"""WithinEpoch: last.ckpt is written within an epoch, too: every few minutes, and where a signal ends the run."""

import math
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.runtime.distributed import gather
from imgcls.runtime.signals import Hold, Stopped, heard, stop, stop_if_heard

# A question to all processes lets each wait until its GPU has done what it was given. Asked at every eighth batch, a
# signal is still heard within seconds; it loses no step, for the run ends between two steps and saves there. Where
# gradients of so many batches are summed up, each step is asked before: slow ones would wait longer than clusters do.
_BATCHES = 8
_LOOPS = "epoch_loop"  # in the state of Lightning's fit_loop
_BEFORE = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
_UNDER_WAY = {"ready": 1, "started": 1, "processed": 0, "completed": 0}


class WithinEpoch(Callback):
    """Saves between two steps of the optimizer, from where a resumed run is the same run bit for bit.

    From the first step to the last, a signal waits for such a place: the next step, the wait for its batch, or a
    validation, which is begun anew. Several processes agree on it before each step of the optimizer; those on GPUs do
    so every few batches.

    Args:
        saver: Writes the checkpoint.
        minutes: Minutes from one checkpoint to the next; None or 0: only a signal saves within an epoch.
    """

    def __init__(self, saver: CheckpointSaver, minutes: float | None) -> None:
        self.saver = saver
        self._seconds = 60 * minutes if minutes else math.inf
        self._next = math.inf
        self._hold = Hold()
        self._trains = False
        self._validates = False
        self._saved = -1  # step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep signals for the places where the run may end."""
        # that of a validation which was broken off would be taken for broken off for ever
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
        self._note_saved(trainer)
        self._trains = True
        self._hold.begin()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End between epochs, of which the last one is saved."""
        if trainer.world_size == 1:
            stop_if_heard()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End, or save, before a step whose gradients are the first of their sum."""
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
        """Let the run end in the wait for the next batch, and in a validation."""
        stepped = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        self._hold.waits = stepped and trainer.world_size == 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember it; one that a limit of steps asks for is not asked for again by a run that goes on."""
        self._validates = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        self._hold.waits = self._hold.waits and not trainer.should_stop

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget it."""
        self._validates = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the epoch be saved."""
        self._hold.waits = False
        self._note_saved(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals be raised anywhere."""
        self._release()
        stop_if_heard()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the steps that a signal would lose."""
        if self._trains and isinstance(exception, Stopped) and trainer.global_step != self._saved:
            self._save(trainer)
        self._release()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a run that goes on repeat a validation that has not ended, and a step that has not begun."""
        loops = checkpoint["loops"]["fit_loop"]
        if self._validates:
            loops[f"{_LOOPS}.val_loop.batch_progress"] |= {"total": dict(_UNDER_WAY), "current": dict(_BEFORE)}
        for progress in (loops[f"{_LOOPS}.batch_progress"][part] for part in ("total", "current")):
            progress["ready"] = progress["started"]

    def _save(self, trainer: pl.Trainer) -> None:
        self.saver.save_within_epoch(trainer)
        self._note_saved(trainer)

    def _note_saved(self, trainer: pl.Trainer) -> None:
        self._saved, self._next = trainer.global_step, time.monotonic() + self._seconds

    def _release(self) -> None:
        self._trains = self._hold.waits = False
        self._hold.end()
