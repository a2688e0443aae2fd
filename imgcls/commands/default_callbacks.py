"""The callbacks that a run gets by default, beside those of ``trainer.callbacks``."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.callbacks.csv_history import History
from imgcls.callbacks.ema import EMA
from imgcls.callbacks.live_bar import LiveBar
from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.checkpoints.run_folder import CHECKPOINTS
from imgcls.commands.monitored_values import Monitored
from imgcls.commands.trainer import as_list
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)


def user_callbacks(options: Mapping[str, Any]) -> list[Callback]:
    """Return ``trainer.callbacks``, with several metrics loggers joined into the first.

    Lightning 2.6 refuses two callbacks that keep their state under one name.

    Raises:
        ConfigError: If two of them use one name for different metrics.
    """
    callbacks: list[Callback] = as_list(options["callbacks"])
    loggers = [callback for callback in callbacks if type(callback) is MetricsLogger]
    if len(loggers) < 2:
        return callbacks
    specs: dict[str, Any] = {}
    for name, spec in (item for logger in loggers for item in logger.specs.items()):
        if specs.setdefault(name, spec) != spec:
            raise ConfigError(
                f"imgcls.MetricsLogger: metrics.{name}: two loggers have different metrics of this name; rename one"
            )
    joined = {id(loggers[0]): MetricsLogger(specs)}
    return [joined.get(id(item), item) for item in callbacks if item not in loggers[1:]]


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
    if not _has(found, MetricsLogger):
        found.append(MetricsLogger(metrics))
    if not _has(found, ProgressBar) and options["enable_progress_bar"] is not False and sys.stderr.isatty():
        found.append(LiveBar())
    return found


def moving_average(callbacks: Sequence[Callback], start_averages: bool | None) -> list[Callback]:
    """Return the moving average of the weights for a run that has none of its own.

    ``start_averages`` is whether the resumed run averages; None for a new run.
    """
    if start_averages is False or any(_has(callbacks, kind) for kind in (WeightAveraging, StochasticWeightAveraging)):
        return []
    if any(isinstance(item, ModelCheckpoint) and item.save_weights_only for item in callbacks):
        log.info(
            "no imgcls.EMA: a ModelCheckpoint with save_weights_only: true would save the weights that are not averaged"
        )
        return []
    return [EMA()]


def early_stopping(
    callbacks: Sequence[Callback], monitored: Monitored, patience: int | None, options: Mapping[str, Any]
) -> list[Callback]:
    """Return early stopping for a run that has none of its own, and monitors a value.

    ``patience`` is in epochs; None: no early stopping. Lightning counts it in validations, of which an epoch may have
    several, or less than one.
    """
    if patience is None or monitored.monitor is None or _has(callbacks, EarlyStopping):
        return []
    of_train = monitored.monitor.startswith("train_")  # which is known at the end of the epoch, not of a validation
    return [
        EarlyStopping(
            monitored.monitor,
            mode=monitored.mode,
            patience=patience if of_train else max(round(patience * _validations(options)), 1),
            strict=False,  # a validation_step of the user's may log other values than the default monitor
            check_on_train_epoch_end=True if of_train else None,
        )
    ]


def _validations(options: Mapping[str, Any]) -> float:
    """Return the validations per epoch; 1 where they are counted in batches or by the clock."""
    interval, every = options["val_check_interval"], options["check_val_every_n_epoch"] or 1
    return 1 / interval if isinstance(interval, float) and 0 < interval < 1 else 1 / every


def run_callbacks(
    callbacks: Sequence[Callback], monitored: Monitored, folder: Path | None, keep_checkpoints: bool
) -> list[Callback]:
    """Return what every fit has besides the given callbacks: its history, and best.ckpt and last.ckpt.

    The user's ModelCheckpoints get the run folder where they have no ``dirpath``. It is None where nothing is kept.
    """
    if folder is None:
        return [History(None, monitored.monitor)]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / CHECKPOINTS)
    history = History(folder / "metrics.csv", monitored.monitor)
    if not keep_checkpoints:
        return [history]
    return [history, CheckpointSaver(folder / CHECKPOINTS, monitored.monitor, monitored.mode)]


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)
