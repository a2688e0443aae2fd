"""Run Lightning's LearningRateFinder and BatchSizeFinder before a fit.

Each searches in a fit of its own, in a temporary folder, and restores the weights. The run itself is the same as with
the found value in its configuration.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from imgcls.callbacks.ema import EMA
from imgcls.callbacks.stopping import StopBeforeTraining
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.commands.trainer import build_trainer
from imgcls.config.overrides import value_at, with_values
from imgcls.data.datamodule import ImageDataModule
from imgcls.errors import ConfigError
from imgcls.models.classifier import ImageClassifier
from imgcls.runtime.signals import postponed
from imgcls.types import LR_SCALE

log = logging.getLogger(__name__)

Finder = LearningRateFinder | BatchSizeFinder
Values = dict[str, Any]  # dotted key of the configuration -> value

LR = "model.init_args.optimizer_config.lr"
BATCH_SIZE = "data.init_args.batch_size"

_KEYS: dict[type, str] = {LearningRateFinder: LR, BatchSizeFinder: BATCH_SIZE}
_SEARCH: dict[str, Any] = {
    "logger": False,
    "max_epochs": 10_000,  # enough for the finder's steps
    "max_steps": -1,
    "max_time": None,
    "min_epochs": None,
    "min_steps": None,
    "check_val_every_n_epoch": 10_000,
    "val_check_interval": None,
}


def take_finders(callbacks: Sequence[Callback]) -> tuple[list[Callback], list[Finder]]:
    """Separate Lightning's finders from the other callbacks, subclasses of the finders included."""
    finders = [item for item in callbacks if type(item) in _KEYS]
    return [item for item in callbacks if item not in finders], finders  # type: ignore[return-value]


def refuse_several_devices(finders: Sequence[Finder], options: Mapping[str, Any]) -> None:
    """Refuse finders in a run of several processes.

    Lightning 2.6 cannot search the batch size there, and a rate found by one process does not fit the global batch.

    Raises:
        ConfigError: Names the first finder, and the key that takes what it finds.
    """
    if finders and build_trainer({**options, "logger": False}, [], AtomicCheckpointIO()).world_size > 1:
        kind = type(finders[0])
        raise ConfigError(
            f"trainer.callbacks: {kind.__name__} needs --trainer.devices 1; for several devices leave it out, and set "
            f"{_KEYS[kind]}"
        )


def refuse_in_trials(callbacks: Sequence[Callback]) -> None:
    """Refuse finders in the trials of a search, whose values they would overwrite.

    Raises:
        ConfigError: Names the first finder, and its key.
    """
    _, finders = take_finders(callbacks)
    if finders:
        kind = type(finders[0])
        raise ConfigError(
            f"trainer.callbacks: {kind.__name__} would overwrite {_KEYS[kind]} in each trial; leave it out, and set "
            "the key or add it to optuna.search_spaces"
        )


def search(
    finders: Sequence[Finder],
    model: ImageClassifier,
    data: ImageDataModule,
    options: Mapping[str, Any],
    averaged: bool = False,
) -> Values:
    """Run finders in order; each uses the values found before.

    Args:
        finders: The finders; each sets ``model.lr`` or ``data.batch_size``.
        model: The model, its network built; its weights are restored.
        data: The data.
        options: The Trainer's arguments of the run.
        averaged: Whether the run averages the weights.

    Raises:
        ConfigError: If no value is found.
    """
    values: Values = {}
    for finder in finders:
        with tempfile.TemporaryDirectory(prefix="imgcls-search-") as folder:
            choices = {**options, **_SEARCH, "default_root_dir": folder}
            averages = [EMA()] if averaged and isinstance(finder, BatchSizeFinder) else []  # it needs memory, too
            trainer = build_trainer(choices, [*averages, finder, StopBeforeTraining()], AtomicCheckpointIO())
            around = _scaled_rates() if isinstance(finder, LearningRateFinder) else _without_features(model)
            with around, postponed(waits=True):
                trainer.fit(model, datamodule=data)
        values[_KEYS[type(finder)]] = _value(finder, model, data)
    return values


@contextmanager
def _scaled_rates() -> Iterator[None]:
    """Keep the scale of each parameter group's rate, which the scheduler of LearningRateFinder overwrites."""

    def scale(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= group[LR_SCALE]

    hook = register_optimizer_step_pre_hook(scale)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _without_features(model: ImageClassifier) -> Iterator[None]:
    """Train on images instead of cached features, whose computation needs memory for the batch, too."""
    views, model.feature_views = model.feature_views, None
    try:
        yield
    finally:
        model.feature_views = views


def _value(finder: Finder, model: ImageClassifier, data: ImageDataModule) -> float | int:
    """Return what a finder has set, and log it."""
    if isinstance(finder, BatchSizeFinder):
        log.info("%s: %d, found by BatchSizeFinder", BATCH_SIZE, data.batch_size)
        return data.batch_size
    found = finder.optimal_lr.suggestion() if finder.optimal_lr else None
    if found is None:
        raise ConfigError(
            "trainer.callbacks: LearningRateFinder found no learning rate; increase its num_training_steps, or lower "
            "its max_lr"
        )
    unused = "" if model.lr == found else f"; not used, since update_attr is false: {model.lr:.3g}"
    log.info("%s: %.3g, found by LearningRateFinder%s", LR, found, unused)
    return model.lr


def recorded(finders: Sequence[Finder], config: dict[str, Any]) -> Values:
    """Return the values that finders set at the start of a run, from the configuration in its checkpoint."""
    values = {key: value_at(config, key) for key in (_KEYS[type(finder)] for finder in finders)}
    return {key: value for key, value in values.items() if value is not None}


def take_values(values: Values, model: ImageClassifier, data: ImageDataModule) -> None:
    """Set the values in model and data."""
    if LR in values:
        model.lr = values[LR]
    if BATCH_SIZE in values:
        data.batch_size = data.hparams["batch_size"] = values[BATCH_SIZE]


def without_finders(config: dict[str, Any], values: Values) -> dict[str, Any]:
    """Return the configuration with the values in place of the finders, so that it gives the same run without them."""
    config = with_values(config, values, "trainer.callbacks")
    names = {kind.__name__ for kind in _KEYS}
    callbacks = config["trainer"]["callbacks"]
    listed = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    config["trainer"]["callbacks"] = [item for item in listed if _name(item["class_path"]) not in names] or None
    return config


def _name(class_path: str) -> str:
    """Return the name of a class of Lightning without its modules; any other class path as it is."""
    return class_path.rpartition(".")[2] if class_path.startswith("lightning.") else class_path
