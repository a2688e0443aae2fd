"""Values at dotted keys of a configuration, places in lists among them."""

import copy
import importlib
import inspect
import json
from typing import Any

import imgcls
from imgcls.errors import ConfigError, join_keys, known_names

Config = dict[str, Any]


def full_key(key: str) -> str:
    """Return a key with the ``init_args`` that may be left out, as on the command line: ``data.batch_size``."""
    section, _, rest = key.partition(".")
    short = section in {"model", "data"} and rest.partition(".")[0] not in {"", "init_args", "class_path"}
    return f"{section}.init_args.{rest}" if short else key


def public_class(class_path: str) -> str:
    """Return the short name of a class of ours, by which a configuration and a checkpoint know it."""
    name = class_path.rpartition(".")[2]
    return f"imgcls.{name}" if class_path == f"imgcls.{imgcls.HOMES.get(name)}.{name}" else class_path


def value_at(config: Any, key: str) -> Any:
    """Return the value at a dotted key, None where there is none: a model of one's own may have other arguments."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Return dotted key -> value, of all that hold no others; lists are values."""
    if not isinstance(value, dict) or not value:
        return {where: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= leaves(item, join_keys(where, str(key)))
    return found


def with_values(base: Config, values: dict[str, Any], source: str) -> Config:
    """Return a configuration with other values.

    Args:
        base: The resolved configuration.
        values: Dotted key -> value; a part of a key may be a place in a list. What holds others comes before them, and
            another class starts from its own defaults.
        source: Where the keys stand, for messages.

    Raises:
        ConfigError: If there is no such key; names what is near it.
    """
    config = copy.deepcopy(base)
    for key in sorted(values, key=lambda key: key.count(".")):
        try:
            _set(config, key, copy.deepcopy(values[key]))
        except _NoSuchKey as error:
            raise ConfigError(f"{source}: {error}") from error
    return config


class _NoSuchKey(Exception):
    """A key leads nowhere; its text says why."""


def _set(config: Config, key: str, value: Any) -> None:
    parts = key.split(".")
    parent: Any = config
    owner: str | None = None
    for number, part in enumerate(parts[:-1]):
        place = _place(parent, part, owner, parts[:number], key)
        if part == "init_args":
            owner = parent.get("class_path")
            parent.setdefault(part, {})
        else:
            owner = None
        parent = parent.get(place) if isinstance(parent, dict) else parent[int(place)]
    place = _place(parent, parts[-1], owner, parts[:-1], key)
    if place == "class_path" and parent[place] != value:
        parent.clear()
    parent[place] = value


def _place(parent: Any, part: str, owner: str | None, before: list[str], key: str) -> Any:
    """Return the key or index that a part means; ``owner`` is the class whose arguments ``parent`` holds."""
    where = ".".join(before)
    if isinstance(parent, list):
        if part.isdecimal() and int(part) < len(parent):
            return int(part)
        raise _NoSuchKey(f"{key}: {where} is a list of {len(parent)}, counted from 0")
    if not isinstance(parent, dict):
        raise _NoSuchKey(f"{key}: {where} is {json.dumps(parent)}, and holds no {part!r}")
    # a class within a list of plain values, as in augmentations, need not name all of its arguments
    known = list(dict.fromkeys([*parent, *(["init_args"] if "class_path" in parent else []), *_parameters(owner)]))
    if part in known:
        return part
    within = parent.get("init_args") or {}
    hint = f"; did you mean {where}.init_args.{part}?" if part in within else known_names(part, known, where)
    raise _NoSuchKey(f"no key {key!r}{hint}")


def _parameters(class_path: str | None) -> list[str]:
    if class_path is None:
        return []
    module, _, name = class_path.rpartition(".")
    modules = [module] if module else ["albumentations", "torchmetrics"]
    found = next(filter(None, (getattr(importlib.import_module(each), name, None) for each in modules)), None)
    parameters = inspect.signature(found).parameters.values() if callable(found) else []
    return [parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]
