"""The time that a fit still takes, by the epochs that it has trained."""

import math
import time

import lightning.pytorch as pl

from imgcls.runtime.lightning_loops import batches_started, epochs_in_all


class TimeLeft:
    """Estimates how long a fit still takes.

    The last complete epoch, validations included, is the measure of those to come; within the first epoch, its steps.
    Of that one the first step is not measured, which waits for the loader workers to start.
    """

    def __init__(self) -> None:
        self.epochs = math.inf
        """Epochs of the whole run; infinite if it has no limit."""
        self.epoch_seconds: float | None = None
        """Duration of the last complete epoch; None before its end."""
        self._start = self._total = self._first = 0.0
        self._steps = 0
        self._is_partial = False

    def begin(self, trainer: pl.Trainer) -> None:
        """Start a fit."""
        self.epochs, self.epoch_seconds = epochs_in_all(trainer), None
        self._start, self._steps = time.monotonic(), 0
        self._is_partial = batches_started(trainer) > 0

    def begin_epoch(self, steps: float) -> None:
        """Start an epoch of so many batches, those of validations included."""
        self._start, self._steps, self._total = time.monotonic(), 0, steps

    def step(self) -> None:
        """Count a batch."""
        self._steps += 1
        if self._steps == 1:
            self._first = time.monotonic()

    def end_epoch(self) -> None:
        """Note the duration of an epoch, unless the run was resumed within it."""
        now = time.monotonic()
        if self.epoch_seconds is None and self._steps > 1 and not self._is_partial:
            self.epoch_seconds = (now - self._first) * self._steps / (self._steps - 1)
        elif not self._is_partial:
            self.epoch_seconds = now - self._start
        self._is_partial = False

    def seconds(self, epoch: int) -> float:
        """Return the seconds left in an epoch, counted from 0, and those after it; infinite if unknown."""
        elapsed = time.monotonic() - self._start
        whole = self.epoch_seconds
        if whole is None:
            since_first = time.monotonic() - self._first
            whole = since_first / (self._steps - 1) * self._total if self._steps > 1 else math.inf
        later = max(self.epochs - epoch - 1, 0) * whole
        return later + max(whole - elapsed, 0.0)
