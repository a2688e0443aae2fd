"""The callbacks that a run gets where its configuration names none of the kind, and the values that they watch."""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    ProgressBar,
    RichProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.callbacks.csv_history import History
from imgcls.callbacks.ema import EMA
from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.checkpoints.run_folder import BEST, CHECKPOINTS, LAST
from imgcls.errors import ConfigError, did_you_mean

PATIENCE = 10  # epochs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """The values that a run logs, and the one that decides which epoch is best.

    Args:
        monitor: The deciding one; None where nothing is validated: the last epoch is the best.
        mode: ``max`` if higher is better, ``min`` if lower.
        why: Added where a value is missing, a reason.
        modes: Name of each value -> ``max`` or ``min``; None where nobody says which is better.
    """

    monitor: str | None
    mode: str = "max"
    why: str = ""
    modes: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def known(self) -> list[str]:
        """Names of the values."""
        return list(self.modes)

    def mode_of(self, name: str) -> str:
        """Return ``min`` if a value is better when it is low, else ``max``."""
        return self.modes.get(name) or "max"

    def require(self, where: str, name: str, more: Sequence[str] = ()) -> None:
        """Refuse a value that nothing logs.

        Raises:
            ConfigError: Names it, what is near it, and the values that exist.
        """
        known = [*more, *self.known]
        if name not in known:
            there = ", ".join(known) or "no logged values"
            raise ConfigError(f"{where}: nothing logs {name!r}{self.why}{did_you_mean(name, known)}; there are {there}")


def shown_callbacks(
    callbacks: Sequence[Callback], options: dict[str, Any], metrics: dict[str, Any] | None = None
) -> list[Callback]:
    """Append a metrics logger and a progress bar, each where there is none of its kind.

    Args:
        callbacks: The user's callbacks; they stay in front.
        options: The Trainer's arguments, whose flags switch kinds off.
        metrics: Specs for the metrics logger; None for its defaults.
    """
    found = list(callbacks)
    if metrics_logger(found) is None:
        found.append(MetricsLogger(metrics))
    if not _has(found, ProgressBar) and options["enable_progress_bar"] is not False and sys.stdout.isatty():
        found.append(RichProgressBar(refresh_rate=1, leave=False))
    return found


def watch(
    callbacks: Sequence[Callback],
    options: dict[str, Any],
    class_names: list[str],
    monitor: str | None = None,
    multilabel: bool = False,
) -> Watched:
    """Find the values of a run; refuse a callback that watches, or names a file by, another.

    Args:
        callbacks: The callbacks, a metrics logger among them.
        options: The Trainer's arguments.
        class_names: The classes of the data.
        monitor: The deciding value as configured (``experiment.monitor``); None for that of the first checkpoint saver
            that has one, else the default.
        multilabel: Whether an image may have several labels.

    Raises:
        ConfigError: Names the callback, the value, and the values that exist.
    """
    logger = metrics_logger(callbacks)
    validated = options["limit_val_batches"] != 0
    names = logger.names(class_names, multilabel) if logger else []
    why = "" if validated else ", for trainer.limit_val_batches is 0"
    shown = [name for name in names if validated or not name.startswith("validation_")]
    modes = {name: logger.mode(name, class_names, multilabel) for name in shown} if logger else {}
    default = logger.default_monitor(class_names, multilabel) if logger and validated else None
    watched = Watched(*_decisive(callbacks, modes, monitor, default), why, modes)
    if monitor is not None:
        watched.require("experiment.monitor", monitor)
    for callback in callbacks:
        if isinstance(callback, (ModelCheckpoint, EarlyStopping)):
            _check(callback, watched)
    return watched


def _decisive(
    callbacks: Sequence[Callback], modes: Mapping[str, str | None], monitor: str | None, default: str | None
) -> tuple[str | None, str]:
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and monitor in (None, callback.monitor):
            return callback.monitor, callback.mode
    name = monitor or default
    if name is not None and modes.get(name, "max") is None:
        raise ConfigError(
            f"{name} decides which epoch is best, and nothing says whether it is better when it is high or low: set "
            "higher_is_better in its class, or add a ModelCheckpoint with that monitor and its mode"
        )
    return name, modes.get(name or "") or "max"


def _check(callback: ModelCheckpoint | EarlyStopping, watched: Watched) -> None:
    name = type(callback).__name__
    if callback.monitor is not None:
        watched.require(f"{name}: monitor", callback.monitor)
        if watched.modes[callback.monitor] not in (None, callback.mode):
            raise ConfigError(
                f"{name}: monitor: {callback.monitor}, mode: {callback.mode} (Lightning's default is min) would keep "
                f"to the worst; give mode: {watched.modes[callback.monitor]}"
            )
        if callback.monitor.startswith("train_"):
            _look_at_the_epochs_end(callback)
    if (
        isinstance(callback, ModelCheckpoint)
        and callback.dirpath is None
        and f"{callback.filename}.ckpt" in {BEST, LAST}
    ):
        raise ConfigError(
            f"{name}: filename: {callback.filename!r} is a file that every run keeps by itself; take another name"
        )
    if isinstance(callback, ModelCheckpoint) and callback.dirpath is None and callback.save_last:
        raise ConfigError(f"{name}: save_last: {LAST} is a file that every run keeps by itself; leave the option out")
    for placeholder in re.findall(r"\{(\w+)", getattr(callback, "filename", None) or ""):
        watched.require(f"{name}: filename", placeholder, ["epoch", "step"])


def _look_at_the_epochs_end(callback: ModelCheckpoint | EarlyStopping) -> None:
    """Let a callback wait for a value of the whole epoch; a validation within it has none, and Lightning breaks off."""
    key = "_check_on_train_epoch_end" if isinstance(callback, EarlyStopping) else "_save_on_train_epoch_end"
    if getattr(callback, key) is None:
        setattr(callback, key, True)


def moving_average(callbacks: Sequence[Callback], start_averages: bool | None) -> list[Callback]:
    """Return the moving average of the weights for a run that has none of its own.

    Args:
        callbacks: The callbacks.
        start_averages: Whether the run averaged that goes on; None for a run that begins.
    """
    if start_averages is False or any(_has(callbacks, kind) for kind in (WeightAveraging, StochasticWeightAveraging)):
        return []
    if any(isinstance(item, ModelCheckpoint) and item.save_weights_only for item in callbacks):
        log.info(
            "no imgcls.EMA: a ModelCheckpoint with save_weights_only: true would save the weights that are not averaged"
        )
        return []
    return [EMA()]


def early_stopping(callbacks: Sequence[Callback], watched: Watched, options: Mapping[str, Any]) -> list[Callback]:
    """Return early stopping for a run that has none of its own, and validates.

    Args:
        callbacks: The callbacks.
        watched: The values of the run.
        options: The Trainer's arguments; Lightning counts patience in validations, of which an epoch may have several.
    """
    if watched.monitor is None or _has(callbacks, EarlyStopping):
        return []
    of_train = watched.monitor.startswith("train_")  # which is known at the end of the epoch, not of a validation
    return [
        EarlyStopping(
            watched.monitor,
            mode=watched.mode,
            patience=PATIENCE if of_train else round(PATIENCE * _validations(options["val_check_interval"])),
            check_on_train_epoch_end=True if of_train else None,
        )
    ]


def _validations(interval: object) -> float:
    """Return how many an epoch has, by a share of its batches; 1 where it is counted in batches or by the clock."""
    return 1 / interval if isinstance(interval, float) and 0 < interval < 1 else 1


def run_callbacks(
    callbacks: Sequence[Callback], watched: Watched, folder: Path | None, keep_checkpoints: bool
) -> list[Callback]:
    """Return what every fit has besides the given callbacks: its history, and best.ckpt and last.ckpt.

    Args:
        callbacks: The callbacks so far; the user's checkpoint savers get the run folder where they name none.
        watched: The values of the run.
        folder: The run folder; None where nothing is kept.
        keep_checkpoints: Whether best.ckpt and last.ckpt are wanted.
    """
    if folder is None:
        return [History(None, watched.monitor)]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / CHECKPOINTS)
    history = History(folder / "metrics.csv", watched.monitor)
    if not keep_checkpoints:
        return [history]
    return [history, CheckpointSaver(folder / CHECKPOINTS, watched.monitor, watched.mode)]


def metrics_logger(callbacks: Sequence[Callback]) -> MetricsLogger | None:
    """Return the metrics logger among the callbacks."""
    return next((callback for callback in callbacks if isinstance(callback, MetricsLogger)), None)


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)
