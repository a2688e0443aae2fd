"""The logged values that callbacks and options monitor."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint

from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.errors import ConfigError, did_you_mean

log = logging.getLogger(__name__)

_OURS = {"imgcls", "lightning"}  # packages whose classes log no values but those of ``MetricsLogger.names``


@dataclass(frozen=True)
class Monitored:
    """The values that a run logs, and the one that decides which epoch is best.

    Args:
        monitor: The deciding value; None where nothing is validated: the last epoch is the best.
        mode: ``max`` if higher is better, ``min`` if lower.
        why: Reason why a value is missing, added to the message.
        modes: Name of each value of the metrics loggers -> ``max`` or ``min``; None where its class does not say.
        declared: Name -> mode, of values that callbacks monitor, or whose mode is configured.
        is_open: Whether a class of the user's may log other values.
        awaited: Option and name of each value that only such a class can log.
    """

    monitor: str | None
    mode: str = "max"
    why: str = ""
    modes: Mapping[str, str | None] = field(default_factory=dict)
    declared: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False
    awaited: list[tuple[str, str]] = field(default_factory=list)

    def mode_of(self, name: str) -> str:
        """Return ``min`` if a lower value is better, else ``max``."""
        return self.modes.get(name) or self.declared.get(name) or _guessed_mode(name)

    def is_guessed(self, name: str) -> bool:
        """Whether no class and no callback says which mode a value has."""
        return not (self.modes.get(name) or self.declared.get(name))

    def require(self, where: str, name: str, more: Sequence[str] = ()) -> None:
        """Refuse a value that nothing logs; await one that only a class of the user's can log.

        ``where`` is the option, for the message; ``more`` are names that are known besides.

        Raises:
            ConfigError: Names the value, a similar name, and the values that exist.
        """
        known = [*more, *self.modes]
        if name in known:
            return
        if not self.is_open:
            hint = f"{did_you_mean(name, known)}; available: {', '.join(known) or 'no value'}"
            raise ConfigError(f"{where}: no metric is called {name!r}{self.why}{hint}")
        self.awaited.append((where, name))


def monitored_values(
    callbacks: Sequence[Callback],
    options: Mapping[str, Any],
    model: LightningModule,
    class_names: list[str],
    multilabel: bool = False,
    monitor: str | None = None,
    declared: Mapping[str, str] | None = None,
) -> Monitored:
    """Find the values that a run logs; refuse to monitor, or to name files by, others.

    Args:
        callbacks: The callbacks, default ones included.
        options: The Trainer's arguments.
        model: The model, which may log values of its own.
        class_names: The classes of the data.
        multilabel: Whether the data is multi-label.
        monitor: The deciding value as configured (``experiment.monitor``); None for that of the first ModelCheckpoint
            that has one, else the default.
        declared: Name -> ``max`` or ``min``, of values whose mode is configured.

    Raises:
        ConfigError: Names the option, the value, and the values that exist.
    """
    validated = options["limit_val_batches"] != 0
    loggers = [callback for callback in callbacks if isinstance(callback, MetricsLogger)]
    modes = {
        name: logger.mode(name, class_names, multilabel)
        for logger in loggers
        for name in logger.names(class_names, multilabel)
        if validated or not name.startswith("validation_")
    }
    default = loggers[0].default_monitor(class_names, multilabel) if loggers and validated else None
    watching = [item for item in callbacks if isinstance(item, (ModelCheckpoint, EarlyStopping)) and item.monitor]
    savers = [str(item.monitor) for item in watching if isinstance(item, ModelCheckpoint)]
    deciding = monitor or next(iter(savers), default)
    known = {str(item.monitor): item.mode for item in reversed(watching)} | dict(declared or {})
    why = "" if validated else ", for trainer.limit_val_batches is 0"
    is_open = any(map(_may_log, (model, *callbacks)))
    monitored = Monitored(deciding, _mode(deciding, modes, known), why, modes, known, is_open)
    if monitor is not None:
        monitored.require("experiment.monitor", monitor)
    for callback in callbacks:
        if isinstance(callback, (ModelCheckpoint, EarlyStopping)):
            _check(callback, monitored)
    return monitored


def _may_log(item: object) -> bool:
    """Whether values may be logged that no MetricsLogger names; those of LearningRateMonitor are the optimizer's."""
    return type(item).__module__.partition(".")[0] not in _OURS or isinstance(item, LearningRateMonitor)


def _guessed_mode(name: str) -> str:
    """Return ``min`` for a value that is called a loss or an error, else ``max``."""
    return "min" if re.search("loss|error", name, re.IGNORECASE) else "max"


def _mode(name: str | None, modes: Mapping[str, str | None], declared: Mapping[str, str]) -> str:
    """Return the mode of the deciding value."""
    if name is None:
        return "max"
    if mode := declared.get(name) or modes.get(name):
        return mode
    if name in modes:
        raise ConfigError(
            f"{name} decides which epoch is best, but its class does not say whether higher or lower is better: set "
            "its higher_is_better, or add a ModelCheckpoint with this monitor and its mode"
        )
    log.info(
        "%s decides which epoch is best; mode %s is assumed from its name (to set it: a ModelCheckpoint with this "
        "monitor)",
        name,
        _guessed_mode(name),
    )
    return _guessed_mode(name)


def _check(callback: ModelCheckpoint | EarlyStopping, monitored: Monitored) -> None:
    name = type(callback).__name__
    if callback.monitor is not None:
        monitored.require(f"{name}: monitor", callback.monitor)
        best = monitored.modes.get(callback.monitor)
        if best not in (None, callback.mode):
            raise ConfigError(
                f"{name}: monitor: {callback.monitor}, mode: {callback.mode} (Lightning's default is min) would keep "
                f"the worst epoch, since {'higher' if best == 'max' else 'lower'} is better; set mode: {best}"
            )
        if callback.monitor.startswith("train_"):
            _wait_for_the_epochs_end(callback)
    for placeholder in re.findall(r"\{(.*?)[:}]", getattr(callback, "filename", None) or ""):  # as Lightning finds them
        monitored.require(f"{name}: filename", placeholder, ["epoch", "step"])


def _wait_for_the_epochs_end(callback: ModelCheckpoint | EarlyStopping) -> None:
    """Let a callback that monitors a value of the whole epoch check it at the epoch's end.

    Where an epoch has several validations, both check after each of them (Lightning 2.6), and raise, for the value is
    not logged yet. The callback exists already, and keeps the constructor's argument in this attribute alone.
    """
    key = "_check_on_train_epoch_end" if isinstance(callback, EarlyStopping) else "_save_on_train_epoch_end"
    if getattr(callback, key) is None:
        setattr(callback, key, True)
