"""Get and set values at dotted keys of a configuration, including list indices."""

import copy
import importlib
import inspect
import json
from typing import Any

import imgcls
from imgcls.errors import ConfigError, join_keys, known_names

Config = dict[str, Any]


def full_key(key: str) -> str:
    """Insert the ``init_args`` that may be omitted after ``model`` and ``data``, as in ``data.batch_size``."""
    section, _, rest = key.partition(".")
    short = section in {"model", "data"} and rest.partition(".")[0] not in {"", "init_args", "class_path"}
    return f"{section}.init_args.{rest}" if short else key


def public_class(class_path: str) -> str:
    """Return the public name of one of our classes, as configurations and checkpoints store it."""
    name = class_path.rpartition(".")[2]
    return f"imgcls.{name}" if class_path == f"imgcls.{imgcls.HOMES.get(name)}.{name}" else class_path


def value_at(config: Any, key: str) -> Any:
    """Return the value at a dotted key; None if there is no such key."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Flatten nested dicts into dotted key -> value; lists are values."""
    if not isinstance(value, dict) or (where and not value):
        return {where: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= leaves(item, join_keys(where, str(key)))
    return found


def with_values(base: Config, values: dict[str, Any], source: str) -> Config:
    """Return a copy of a configuration with changed values.

    Args:
        base: The resolved configuration.
        values: Dotted key -> value, where a part may be a list index. Outer keys are set before the keys within them;
            a changed ``class_path`` drops the former ``init_args``.
        source: Where the keys come from, for messages.

    Raises:
        ConfigError: If there is no such key; names the closest one.
    """
    config = copy.deepcopy(base)
    for key in sorted(values, key=lambda key: key.count(".")):
        try:
            _set(config, key, copy.deepcopy(values[key]))
        except _NoSuchKeyError as error:
            raise ConfigError(f"{source}: {error}") from error
    return config


class _NoSuchKeyError(Exception):
    """A dotted key that does not exist; the message says why."""


def _set(config: Config, key: str, value: Any) -> None:
    parts = key.split(".")
    parent: Any = config
    owner: str | None = None
    for number, part in enumerate(parts[:-1]):
        item = _key_or_index(parent, part, owner, parts[:number], key)
        if part == "init_args":
            owner = parent.get("class_path")
            parent.setdefault(part, {})
        else:
            owner = None
        parent = parent.get(item) if isinstance(parent, dict) else parent[item]
    item = _key_or_index(parent, parts[-1], owner, parts[:-1], key)
    if item == "class_path" and parent[item] != value:
        parent.clear()
    parent[item] = value


def _key_or_index(parent: Any, part: str, owner: str | None, before: list[str], key: str) -> Any:
    """Return the key or index of a part of a dotted key, within ``parent``, which holds the arguments of ``owner``.

    Raises:
        _NoSuchKeyError: If there is none.
    """
    where = ".".join(before)
    if isinstance(parent, list):
        if part.isdecimal() and int(part) < len(parent):
            return int(part)
        raise _NoSuchKeyError(f"{key}: {where} is a list of {len(parent)} items, indexed from 0")
    if parent is None and where == "trainer.callbacks":
        raise _NoSuchKeyError("trainer.callbacks lists no callback; for early stopping: --experiment.patience EPOCHS")
    if not isinstance(parent, dict):
        raise _NoSuchKeyError(f"{key}: {where} is {json.dumps(parent)} and has no {part!r}; set {where} first")
    # specs in lists, such as augmentations, need not name all arguments of their class
    known = list(dict.fromkeys([*parent, *(["init_args"] if "class_path" in parent else []), *_parameters(owner)]))
    if part in known:
        return part
    within = parent.get("init_args") or {}
    hint = f"; did you mean {where}.init_args.{part}?" if part in within else known_names(part, known, where)
    raise _NoSuchKeyError(f"no key {key!r}{hint}")


def _parameters(class_path: str | None) -> list[str]:
    if class_path is None:
        return []
    module, _, name = class_path.rpartition(".")
    modules = [module] if module else ["albumentations", "torchmetrics"]
    found = next(filter(None, (getattr(importlib.import_module(each), name, None) for each in modules)), None)
    parameters = inspect.signature(found).parameters.values() if callable(found) else []
    return [parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]
