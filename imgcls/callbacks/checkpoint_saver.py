"""CheckpointSaver: save best.ckpt and last.ckpt in every run."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from imgcls.checkpoints.run_folder import BEST, LAST
from imgcls.runtime.atomic_files import link


class CheckpointSaver(Checkpoint):
    """Save last.ckpt at the end of each epoch and link it as best.ckpt if the monitored value improved.

    Ties are broken by the lower ``validation_loss``. Within an epoch that is validated several times, best.ckpt is
    saved after the best validation.

    Args:
        folder: The folder of both files.
        monitor: The logged value; None without validation, so that the last epoch is the best.
        mode: ``max`` if higher is better, ``min`` if lower.
    """

    def __init__(self, folder: Path, monitor: str | None, mode: str) -> None:
        self.best, self.last = folder / BEST, folder / LAST
        self.monitor = monitor
        self.mode = mode
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_values: dict[str, float] = {}
        """Logged values of the best validation."""
        self._validated_at = -1  # step
        self._last_is_best = False
        self.saved_at = ""
        """Position of last.ckpt in words, for messages; empty until it is saved."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Repair the link of a killed run; forget a best epoch whose file is in another run's folder."""
        if trainer.is_global_zero:
            resumes_last = trainer.ckpt_path and Path(trainer.ckpt_path) == self.last
            if self._last_is_best and resumes_last:  # it may have been killed between saving and linking
                link(self.last, self.best)
        if not self.best.exists():
            self.best_score = self.best_epoch = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the monitored value is new; within an epoch, save an improved model at once."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._validated_at = trainer.global_step
        of_validation = self.monitor is not None and not self.monitor.startswith("train_")
        if of_validation and not trainer.is_last_batch and self._improved(trainer):
            self._last_is_best = False
            trainer.save_checkpoint(self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save last.ckpt, from which a resumed run is bit-identical to an uninterrupted one."""
        self._last_is_best = self._improved(trainer)
        trainer.save_checkpoint(self.last)
        self.saved_at = f"after epoch {trainer.current_epoch + 1}"
        if self._last_is_best and trainer.is_global_zero:
            link(self.last, self.best)

    def save_within_epoch(self, trainer: pl.Trainer) -> None:
        """Save last.ckpt between two steps."""
        self._last_is_best = False
        trainer.save_checkpoint(self.last)
        self.saved_at = f"after step {trainer.global_step}, within epoch {trainer.current_epoch + 1}"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Link the last epoch as the best one if nothing was validated."""
        if trainer.is_global_zero and self.last.exists() and not self.best.exists():
            link(self.last, self.best)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far."""
        best = {"best_score": self.best_score, "best_epoch": self.best_epoch, "best_values": self.best_values}
        return {"monitor": self.monitor, "last_is_best": self._last_is_best} | best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch, unless the monitored value has changed."""
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
        if value is None:  # the epoch was trained before the run was resumed
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
