"""Progress of Lightning's loops: the only module that uses their internals.

Lightning 2.6 has no public way to ask how far an epoch is, nor to choose what a checkpoint saved within an epoch
resumes with. The keys of ``checkpoint["loops"]`` are those of ``state_dict()`` of the loops.
"""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

_EPOCH_LOOP = "epoch_loop"
_STARTED = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
_NOT_STARTED = {"ready": 0, "started": 0, "processed": 0, "completed": 0}


def optimizer_steps_per_epoch(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps per epoch, 0 if the training loader has no length; makes the loader.

    Raises:
        ValueError: If ``val_check_interval`` exceeds the number of batches.
    """
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    return math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else 0


def epochs_in_all(trainer: pl.Trainer) -> float:
    """Return the number of epochs of the whole run, by its limits of epochs and steps; infinite without a limit."""
    steps = optimizer_steps_per_epoch(trainer)
    if steps:
        return trainer.estimated_stepping_batches / steps
    return trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else math.inf


def batches_started(trainer: pl.Trainer) -> int:
    """Return the number of batches of the current epoch that are already trained; above 0 on resume within it."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def epochs_completed(checkpoint: Mapping[str, Any]) -> int:
    """Return the number of complete epochs of a checkpoint."""
    done: int = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return done


def is_within_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was saved before the end of an epoch."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return bool(progress["processed"] < progress["ready"])


def forget_interrupted_validation(trainer: pl.Trainer) -> None:
    """Let validations run to their end again after resuming from one that was interrupted.

    Lightning 2.6 otherwise regards each later validation as interrupted.
    """
    trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


def prepare_resume(checkpoint: dict[str, Any], is_validating: bool) -> None:
    """Change the progress in a checkpoint so that the run resumes before the step that has not started.

    Args:
        checkpoint: Lightning's checkpoint; changed in place.
        is_validating: Whether a validation is running; it is repeated.
    """
    loops = checkpoint["loops"]["fit_loop"]
    if is_validating:
        loops[f"{_EPOCH_LOOP}.val_loop.batch_progress"] |= {"total": dict(_STARTED), "current": dict(_NOT_STARTED)}
    for progress in (loops[f"{_EPOCH_LOOP}.batch_progress"][part] for part in ("total", "current")):
        progress["ready"] = progress["started"]
