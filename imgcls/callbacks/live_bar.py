"""LiveBar: one progress bar at the foot of the terminal, for training, evaluation and prediction."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from imgcls.callbacks.time_left import TimeLeft
from imgcls.runtime.progress import BAR_SECONDS, duration

_COLUMNS = ("description", "fields[count]", "fields[loss]", "fields[speed]", "fields[left]")


class LiveBar(ProgressBar):
    """Show epoch, batches, loss, images/s and the time left for the whole run, in one line that never wraps.

    The validations of a fit use the bar of the fit. What is printed or logged meanwhile appears above it. The bar is
    drawn twice a second by the training loop itself: no thread runs while loader workers are forked, and the loss is
    read from the device only then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Progress | None = None
        self._what = ""
        self._total: float = 0
        self._done = 0
        self._drawn = 0.0
        self._loss = ""
        self._images = 0  # since the first batch, which waits for the loader workers to start
        self._since: float | None = None
        self._time_left = TimeLeft()

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    # -- training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._open(self._epoch(trainer))
        self._time_left.begin(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the line of an epoch."""
        self._loss = ""
        self._time_left.begin_epoch(self.total_train_batches + self.total_val_batches)
        self._begin(self._epoch(trainer), self.total_train_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        self._time_left.step()
        if self._advance(batch_idx + 1, batch):
            self._loss = _loss_of(outputs, trainer.accumulate_grad_batches) or self._loss
            self._draw(self._time_left.seconds(trainer.current_epoch))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note how long the epoch took, its validations included, and show the next epoch below its line."""
        self._time_left.end_epoch()
        self._loss = ""
        if trainer.current_epoch + 1 != trainer.max_epochs:
            self._begin(self._epoch(trainer, 2), self.total_train_batches)
        self._draw(self._time_left.seconds(trainer.current_epoch))

    # -- validation, within a fit and by itself

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start a validation."""
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._loss = "validating" if fitting else ""
        self._begin(self._epoch(trainer) if fitting else "Validation", _sum(trainer.num_val_batches))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Count a batch."""
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self._time_left.step()
        if self._advance(self._done + 1, batch):
            self._draw(self._time_left.seconds(trainer.current_epoch) if fitting else self._own_time_left())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue the training epoch, which may have several validations."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._loss = ""
            self._begin(self._epoch(trainer), self.total_train_batches)

    # -- test and prediction

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._begin("Test", _sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._begin("Prediction", _sum(trainer.num_predict_batches))

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    # -- end

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self.teardown(trainer, pl_module, "")

    # -- the line

    def _epoch(self, trainer: pl.Trainer, add: int = 1) -> str:
        most = trainer.max_epochs
        return f"Epoch {trainer.current_epoch + add}" + (f"/{most}" if most is not None and most > 0 else "")

    def _open(self, what: str) -> None:
        if not self._enabled or self._bar is not None:
            return
        texts = [TextColumn(f"{{task.{name}}}") for name in _COLUMNS]
        self._bar = Progress(
            texts[0],
            BarColumn(bar_width=None),
            *texts[1:],
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),  # else what is printed would leave its file
            expand=True,
        )
        self._bar.add_task(what, total=None, count="", loss=" starting", speed="", left="")
        self._bar.start()

    def _begin(self, what: str, total: float) -> None:
        """Start to count batches, in the bar that is open or a new one."""
        self._open(what)
        self._what, self._total, self._done = what, total, 0
        self._images, self._since = 0, None
        if time.monotonic() - self._drawn >= BAR_SECONDS:
            self._draw(math.inf)

    def _advance(self, done: int, batch: Any) -> bool:
        """Count a batch, and return whether the bar is due."""
        self._done = done
        now = time.monotonic()
        if self._since is None:
            self._since = now
        else:
            self._images += _size_of(batch)
        return self._bar is not None and now - self._drawn >= BAR_SECONDS

    def _draw(self, left: float) -> None:
        if self._bar is None:
            return
        self._drawn = time.monotonic()
        known = math.isfinite(self._total)
        [task] = self._bar.task_ids
        self._bar.update(
            task,
            description=self._what,
            total=self._total if known else None,
            completed=self._done,
            count=f"{self._done}/{self._total}" if known else f"{self._done}",
            loss=f" {self._loss}",
            speed=f" {self._speed()}",
            left=f" {duration(left)} left" if math.isfinite(left) else "",
            refresh=True,
        )

    def _speed(self) -> str:
        seconds = self._drawn - (self._since or self._drawn)
        rate = self._images * self.trainer.world_size / seconds if seconds else 0.0
        return f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s" if rate else ""

    def _own_time_left(self) -> float:
        """Return the seconds that an evaluation or prediction still takes."""
        seconds = time.monotonic() - (self._since or 0.0)
        return seconds / (self._done - 1) * (self._total - self._done) if self._done > 1 else math.inf


def _loss_of(outputs: Any, accumulated: int) -> str:
    """Return the loss of a step as text; waits for the device."""
    given = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    if isinstance(loss := given.get("batch_loss"), Tensor):
        return f"train loss {loss.item():.4f}"
    loss = given.get("loss")  # divided by the accumulated batches
    return f"train loss {loss.item() * accumulated:.4f}" if isinstance(loss, Tensor) and loss.numel() == 1 else ""


def _size_of(batch: Any) -> int:
    label = batch.get("label") if isinstance(batch, Mapping) else None
    return len(label) if isinstance(label, Tensor) and label.ndim else 0


def _sum(batches: Any) -> float:
    """Return the number of batches of all loaders; Lightning has one number for each."""
    return sum(batches) if isinstance(batches, list) else float(batches)
