"""The best epoch of a fit: its values, its checkpoint, and the evaluation of that checkpoint after the training."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.callbacks.csv_history import History
from imgcls.commands.calibration import validate_and_calibrate
from imgcls.commands.command import Command
from imgcls.commands.trainer import evaluate_in_float32
from imgcls.statistics.temperature import Temperature

log = logging.getLogger(__name__)


@dataclass
class Evaluated:
    """What the evaluation of a fit's checkpoint gave.

    Args:
        path: The checkpoint; None if none was kept, and the last weights were evaluated.
        results: Split -> logged name -> value.
        temperature: The fitted temperature; None if none was fitted.
    """

    path: Path | None
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    temperature: Temperature | None = None


def checkpoint_saver(trainer: Trainer) -> CheckpointSaver | None:
    """Return the callback that keeps best.ckpt and last.ckpt."""
    return next((item for item in trainer.checkpoint_callbacks if isinstance(item, CheckpointSaver)), None)


def best_row(trainer: Trainer) -> dict[str, Any] | None:
    """Return the values of the best epoch, ``epoch`` among them; None if the monitored value was never a number."""
    saver = checkpoint_saver(trainer)
    if saver is None or saver.best_epoch is None:
        return None
    [history] = [item for item in trainer.callbacks if isinstance(item, History)]  # type: ignore[attr-defined]
    row = next(row for row in history.rows if row["epoch"] == saver.best_epoch)
    return row | saver.best_values


def evaluate_best_epoch(command: Command, folder: Path | None, *, tests: bool, calibrates: bool) -> Evaluated:
    """Evaluate the best checkpoint of a finished training in float32; the last one if there is no best epoch.

    Args:
        command: The fit, whose Trainer has ended the training.
        folder: The run folder, for one row per image; None to write none.
        tests: Whether to evaluate the test data too.
        calibrates: Whether to fit the temperature of the best checkpoint on the validation data.
    """
    trainer = command.trainer
    evaluated = Evaluated(_checkpoint(trainer))
    evaluate_in_float32(trainer)
    # Lightning 2.6 evaluates with the last average of a WeightAveraging that was fitted, whatever the checkpoint is
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [item for item in callbacks if not isinstance(item, WeightAveraging)]  # type: ignore[attr-defined]
    if trainer.limit_val_batches:
        loggers, trainer.loggers = trainer.loggers, []  # their curves have this epoch already
        try:
            _validate(command, folder, evaluated, calibrates)
        finally:
            trainer.loggers = loggers
    if tests:
        evaluated.results["test"] = command.evaluate("test", evaluated.path, folder)
    return evaluated


def _validate(command: Command, folder: Path | None, evaluated: Evaluated, calibrates: bool) -> None:
    """Validate the checkpoint; calibrate it if it is the best one."""

    def evaluate() -> dict[str, float]:
        return command.evaluate("validation", path, folder)

    path, trainer = evaluated.path, command.trainer
    saver = checkpoint_saver(trainer)
    # the first process alone knows the run folder before the fit
    is_best = trainer.strategy.broadcast(saver is not None and path == saver.best)
    if path is None or not is_best or not calibrates:
        evaluated.results["validation"] = evaluate()
        return
    values, evaluated.temperature = validate_and_calibrate(evaluate, trainer, command.model, path)
    evaluated.results["validation"] = values


def _checkpoint(trainer: Trainer) -> Path | None:
    """Return the checkpoint to evaluate, and log why it is this one."""
    saver = checkpoint_saver(trainer)
    if saver is None:
        log.info("No checkpoint is kept, as configured: evaluating the last weights")
        return None
    if saver.monitor is None:
        log.info("No validated metric to choose the best epoch by: evaluating the last one")
    elif saver.best_epoch is None:
        log.info("No best epoch by %s: evaluating the last one", saver.monitor)
    else:
        log.info("Best epoch: %d, %s %.4f", saver.best_epoch + 1, saver.monitor, saver.best_score)
    is_there = saver.best_epoch is not None and saver.best.exists()
    path: Path = trainer.strategy.broadcast(saver.best if is_there else saver.last)
    return path
