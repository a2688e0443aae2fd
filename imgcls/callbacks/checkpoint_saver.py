"""CheckpointSaver: the two checkpoints that every run keeps, best.ckpt and last.ckpt."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from imgcls.checkpoints.run_folder import BEST, LAST
from imgcls.runtime.atomic_files import link


class CheckpointSaver(Checkpoint):
    """Writes last.ckpt at the end of each epoch, and keeps it as best.ckpt where the monitored value improved.

    Among equal values the lower ``validation_loss`` is the better one. Where an epoch has several validations, or fewer
    than one, best.ckpt is written after the best of them.

    Args:
        folder: Where the two files lie.
        monitor: The logged value that decides; None where nothing is validated, so that the last epoch is the best.
        mode: ``max`` if higher is better, ``min`` if lower.
    """

    def __init__(self, folder: Path, monitor: str | None, mode: str) -> None:
        self.folder = folder
        self.monitor = monitor
        self.mode = mode
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_values: dict[str, float] = {}
        """The values of the best validation, of which an epoch may have several."""
        self._validated_at = -1  # step
        self._last_is_best = False
        self.stands = ""
        """In words, what last.ckpt holds; empty until it is written."""

    @property
    def best(self) -> Path:
        """Path of best.ckpt."""
        return self.folder / BEST

    @property
    def last(self) -> Path:
        """Path of last.ckpt."""
        return self.folder / LAST

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mend what a killed run left half-written; forget a best epoch whose file lies in another run's folder."""
        if trainer.is_global_zero:
            goes_on_from_last = trainer.ckpt_path and Path(trainer.ckpt_path) == self.last
            if self._last_is_best and goes_on_from_last:  # perhaps killed between the two
                link(self.last, self.best)
        if not self.best.exists():
            self.best_score = self.best_epoch = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that the monitored value is new; within an epoch, save what it is the value of."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._validated_at = trainer.global_step
        of_validation = self.monitor is not None and not self.monitor.startswith("train_")
        if of_validation and not trainer.is_last_batch and self._improved(trainer):
            self._last_is_best = False
            trainer.save_checkpoint(self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; an epoch's end is the place from which a resumed run is the same run bit for bit."""
        self._last_is_best = self._improved(trainer)
        trainer.save_checkpoint(self.last)
        self.stands = f"after epoch {trainer.current_epoch + 1}"
        if self._last_is_best and trainer.is_global_zero:
            link(self.last, self.best)

    def save_within_epoch(self, trainer: pl.Trainer) -> None:
        """Write last.ckpt between two steps."""
        self._last_is_best = False
        trainer.save_checkpoint(self.last)
        self.stands = f"after step {trainer.global_step}, within epoch {trainer.current_epoch + 1}"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where nothing was validated, let the last epoch be the best."""
        if trainer.is_global_zero and self.last.exists() and not self.best.exists():
            link(self.last, self.best)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far."""
        best = {"best_score": self.best_score, "best_epoch": self.best_epoch, "best_values": self.best_values}
        return {"monitor": self.monitor, "last_is_best": self._last_is_best} | best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch, unless another value is monitored now."""
        if state_dict["monitor"] == self.monitor:
            self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
            self.best_values = state_dict.get("best_values", {})
            self._last_is_best = state_dict.get("last_is_best", False)

    def _improved(self, trainer: pl.Trainer) -> bool:
        if self.monitor is None:
            self.best_epoch = trainer.current_epoch
            return True
        if self.monitor.startswith("validation_") and self._validated_at != trainer.global_step:
            return False
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:  # of an epoch that was trained before the run went on
            return False
        if not self._is_better(float(value), float(trainer.callback_metrics.get("validation_loss", math.nan))):
            return False
        self.best_score, self.best_epoch = float(value), trainer.current_epoch
        logged = trainer.callback_metrics.items()
        kept = {name: value for name, value in logged if name == self.monitor or name.startswith("validation_")}
        self.best_values = {name: float(value) for name, value in kept.items()}
        return True

    def _is_better(self, score: float, loss: float) -> bool:
        """Compare with the best so far; NaN is never better."""
        if self.best_score is None:
            return not math.isnan(score)
        if score == self.best_score:
            return loss < self.best_values.get("validation_loss", math.nan)
        return score > self.best_score if self.mode == "max" else score < self.best_score
