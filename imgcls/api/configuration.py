"""A configuration given in Python: keywords, dicts with dotted keys, and callbacks, turned into the YAML's values."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback

from imgcls.config.overrides import Config, full_key, public_class
from imgcls.errors import ConfigError, join_keys

_SHORT = {"data": "data.dataset_classes.train", "model": "model.model_name"}  # section -> the key that a text means


def read_sections(*given: Mapping[str, Any]) -> tuple[Config, list[Callback]]:
    """Return a configuration as plain values, as a YAML file has it, and the callbacks that are objects.

    Args:
        given: Configurations, of which a later one wins: section -> its keys, which may be dotted and leave
            ``init_args`` out; or dotted key -> value. A path as ``data`` is the training folder, a text as ``model``
            the name of the network.

    Raises:
        ConfigError: Names a value that no YAML file could hold.
    """
    config: Config = {}
    for section, value in (item for each in given for item in each.items()):
        if isinstance(value, (str, os.PathLike)) and section in _SHORT:
            _set(config, _SHORT[section], value)
        elif isinstance(value, Mapping) and "." not in section:
            config.setdefault(section, {})
            for key, inner in value.items():
                _set(config, f"{section}.{key}", inner)
        else:
            _set(config, section, value)
    trainer = config.get("trainer")
    callbacks = _take_callbacks(trainer) if isinstance(trainer, dict) else []
    return {key: _plain(value, key) for key, value in config.items()}, callbacks


def _set(config: Config, key: str, value: Any) -> None:
    *parents, last = full_key(key).split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
        if not isinstance(config, dict):
            raise ConfigError(f"{key}: {parent} is {config!r:.80} and has no keys")
    before, new = config.get(last), _copied(value)
    config[last] = before | new if isinstance(before, dict) and isinstance(new, dict) else new


def _copied(value: Any) -> Any:
    """Copy nested dicts, so that the user's are not changed."""
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _take_callbacks(trainer: Config) -> list[Callback]:
    """Remove the callbacks that are objects from ``trainer.callbacks``, and return them."""
    given = trainer.get("callbacks")
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    found = [item for item in items if isinstance(item, Callback)]
    rest = [item for item in items if not isinstance(item, Callback)]
    if found and rest:
        trainer["callbacks"] = rest
    elif found:
        del trainer["callbacks"]  # so that those of a YAML file stay
    return found


def _plain(value: Any, key: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {name: _plain(item, join_keys(key, str(name))) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{key}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, type):
        return public_class(f"{value.__module__}.{value.__qualname__}")
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name), f"{key}.{field.name}") for field in fields(value)}
    kind = type(value)
    class_path = public_class(f"{kind.__module__}.{kind.__qualname__}")
    raise ConfigError(
        f"{key} must be plain values, as in the YAML, got an object of {kind.__name__}; give its class and arguments: "
        f"{{'class_path': {class_path!r}, 'init_args': {{…}}}}"
    )
