"""Check the content of a checkpoint, which may come from a stranger, before anything uses it."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from imgcls.checkpoints.schema import CALLBACK_STATES, LARGEST, CheckpointContent, DataState, Strict
from imgcls.errors import ConfigError

Content = dict[str, Any]

CONFIG_KEY = "imgcls_config"
_MAX_DEPTH = 20  # of nested dicts and lists
_MAX_VALUES = 1_000_000


def check_content(path: str | os.PathLike[str], content: Any) -> None:
    """Check the type and size of every value.

    Raises:
        ConfigError: Names the file, the key and what is expected.
    """
    _validate(path, CheckpointContent, content)
    for key in ("imgcls", "hyper_parameters", "datamodule_hyper_parameters", "callbacks", "loops"):
        _check_size(path, key, content.get(key))
    _check_size(path, CONFIG_KEY, json.loads(content.get(CONFIG_KEY) or "{}"))
    if state := data_state(content):
        _validate(path, DataState, state, "data")
        _check_size(path, "eval", state["eval"])
    for key, state in (content.get("callbacks") or {}).items():
        if (shape := CALLBACK_STATES.get(key.partition("{")[0])) is not None:
            _validate(path, shape, state, "callbacks", key)
    for _, item in _walk(content["loops"]):  # the progress of loops
        for count in item.values() if isinstance(item, dict) and "ready" in item else ():
            if not isinstance(count, int) or count < 0:
                _refuse(path, "loops", f"must be an integer from 0, got {count!r:.80}")


def data_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the data module in a checkpoint; empty if there is none."""
    for value in content.values():
        if isinstance(value, dict) and {"class_names", "eval", "split"} <= value.keys():
            return value
    return {}


def _validate(path: str | os.PathLike[str], shape: type[Strict], value: object, *within: str) -> None:
    try:
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        # without the names of the types of a union
        parts = [part for part in map(str, first["loc"]) if not part.startswith("_") and "[" not in part]
        key = ".".join([*within, *parts])
        reason = first["msg"].partition(" or instance of ")[0].removeprefix("Value error, ").lower()
        _refuse(path, key, reason)


def _refuse(path: str | os.PathLike[str], key: str, reason: str) -> None:
    what = f"{key}: {reason}" if key else reason
    raise ConfigError(f"{os.fspath(path)}: is not a checkpoint of imgcls: {what}")


def _check_size(path: str | os.PathLike[str], key: str, value: Any) -> None:
    """Limit the depth, the number of values and the size of integers."""
    for count, (depth, item) in enumerate(_walk(value), 1):
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            _refuse(path, key, f"must have at most {_MAX_DEPTH} levels and {_MAX_VALUES} values")
        if isinstance(item, int) and abs(item) > LARGEST:
            _refuse(path, key, f"an integer must be at most 2**53, got one of {len(str(item))} digits")


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield all values within a value, with their depth."""
    waiting = [(0, value)]
    while waiting:
        depth, item = waiting.pop()
        yield depth, item
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
        waiting += [(depth + 1, value) for value in inner]
