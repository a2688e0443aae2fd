"""The callbacks that a run gets where its configuration names none of the kind, and the values that they watch."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, RichProgressBar

from imgcls.callbacks.history import History
from imgcls.callbacks.metrics import MetricsLogger
from imgcls.callbacks.saver import CheckpointSaver
from imgcls.errors import ConfigError, did_you_mean
from imgcls.run_folder import CHECKPOINTS

PATIENCE = 10  # epochs


def add_default_callbacks(
    callbacks: list[Callback], trainer: dict[str, Any], metrics: dict[str, Any] | None
) -> list[Callback]:
    """Append a metrics logger, a progress bar and early stopping, each where there is none of its kind.

    Args:
        callbacks: The user's callbacks; they stay in front.
        trainer: The Trainer's arguments, whose flags switch kinds off.
        metrics: Specs for the metrics logger; None for its defaults.
    """
    found = list(callbacks)
    if not _has(found, MetricsLogger):
        found.append(MetricsLogger(metrics))
    if not _has(found, ProgressBar) and trainer.get("enable_progress_bar") is not False and sys.stdout.isatty():
        found.append(RichProgressBar(refresh_rate=1, leave=False))
    if not _has(found, EarlyStopping):
        monitor, mode = default_monitor(found)
        found.append(EarlyStopping(monitor, mode=mode, patience=PATIENCE, verbose=False))
    return found


def default_monitor(callbacks: Sequence[Callback]) -> tuple[str, str]:
    """Return the value to choose epochs by, and its mode: the F1 score, else the first metric, else the loss."""
    logger = metrics_logger(callbacks)
    return logger.default_monitor() if logger else ("validation_loss", "min")


def chosen_monitor(callbacks: Sequence[Callback]) -> tuple[str, str]:
    """Return monitor and mode of the first checkpoint saver that has one, else the default."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback.monitor, callback.mode
    return default_monitor(callbacks)


def metrics_logger(callbacks: Sequence[Callback]) -> MetricsLogger | None:
    """Return the metrics logger among the callbacks."""
    return next((callback for callback in callbacks if isinstance(callback, MetricsLogger)), None)


def add_run_callbacks(callbacks: list[Callback], folder: Path | None, keep_checkpoints: bool) -> list[Callback]:
    """Append what every run of ``fit`` has: its history, and best.ckpt and last.ckpt.

    Args:
        callbacks: The callbacks so far; the user's checkpoint savers get the run folder where they name none.
        folder: The run folder; None where nothing is kept.
        keep_checkpoints: Whether best.ckpt and last.ckpt are wanted.
    """
    monitor, mode = chosen_monitor(callbacks)
    if folder is None:
        return [*callbacks, History(None, monitor)]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / CHECKPOINTS)
    found = [*callbacks, History(folder / "metrics.csv", monitor)]
    return [*found, CheckpointSaver(folder / CHECKPOINTS, monitor, mode)] if keep_checkpoints else found


def check_monitors(callbacks: Sequence[Callback], validated: bool) -> None:
    """Refuse a callback that watches, or names a file by, a value that nothing logs.

    Args:
        callbacks: All callbacks.
        validated: Whether the run validates.

    Raises:
        ConfigError: Names the callback, the value, and the values that exist.
    """
    logger = metrics_logger(callbacks)
    known = [name for name in (logger.names() if logger else []) if validated or not name.startswith("validation_")]
    for callback in callbacks:
        if not isinstance(callback, (ModelCheckpoint, EarlyStopping)):
            continue
        name = type(callback).__name__
        if callback.monitor is not None and callback.monitor not in known:
            raise ConfigError(_unknown(f"{name}: monitor", callback.monitor, known))
        for placeholder in re.findall(r"\{(\w+)", getattr(callback, "filename", None) or ""):
            if placeholder not in {"epoch", "step", *known}:
                raise ConfigError(_unknown(f"{name}: filename", placeholder, ["epoch", "step", *known]))


def _unknown(where: str, name: str, known: list[str]) -> str:
    there = ", ".join(known) or "no logged values"
    return f"{where}: nothing logs {name!r}{did_you_mean(name, known)}; there are {there}"


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)
