"""The search space: dotted keys, the values that they may take, and a configuration that has such values."""

import copy
import importlib
import inspect
import json
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from imgcls.config import SearchSpace
from imgcls.errors import ConfigError, did_you_mean

Config = dict[str, Any]

_PLAIN = (str, int, float, bool)


@dataclass(frozen=True)
class Dimension:
    """One key of the search.

    Args:
        key: The dotted key.
        distribution: Optuna's distribution; of choices that are no plain values, over their JSON texts.
        labels: JSON text -> choice.
    """

    key: str
    distribution: BaseDistribution
    labels: dict[str, Any] = field(default_factory=dict)

    def value(self, drawn: Any) -> Any:
        """Return the value for the configuration of what Optuna drew."""
        return self.labels[drawn] if self.labels else drawn

    def grid(self) -> list[Any] | None:
        """All that can be drawn, None if it is not countable."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            return [distribution.low + number * distribution.step for number in range(count)]
        return None

    def probes(self) -> list[Any]:
        """Values that stand for all: every choice; or the lowest, the highest and one between."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return [self.value(choice) for choice in distribution.choices]
        low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
        if isinstance(distribution, IntDistribution):
            between = low + (high - low) // 2 // distribution.step * distribution.step
        else:
            between = (low + high) / 2
        return list(dict.fromkeys([low, high, between]))


class Space:
    """All keys of a search.

    Args:
        spaces: Dotted key -> the values that it may take.

    Raises:
        ConfigError: If there is none, or one is not complete.
    """

    def __init__(self, spaces: dict[str, SearchSpace]) -> None:
        if not spaces:
            raise ConfigError("optuna.search_spaces: holds no key; name one, such as model.init_args.freeze_encoder")
        self.dimensions = [_dimension(key, space) for key, space in spaces.items()]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each key."""
        return {item.key: item.distribution for item in self.dimensions}

    def values(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """Return the values for the configuration of what Optuna drew."""
        return {item.key: item.value(drawn[item.key]) for item in self.dimensions}

    def grids(self) -> dict[str, list[Any]] | None:
        """All that can be drawn for each key, None if that is not countable for one."""
        grids = {item.key: item.grid() for item in self.dimensions}
        found = {key: grid for key, grid in grids.items() if grid is not None}
        return found if len(found) == len(grids) else None

    def size(self) -> int | None:
        """Number of combinations, None if they are not countable."""
        grids = self.grids()
        return None if grids is None else prod(map(len, grids.values()))

    def untried(self, tried: set[str]) -> dict[str, Any] | None:
        """Return the first combination that was not drawn yet, None if none is left or they are not countable."""
        grids = self.grids() or {}
        combinations = (dict(zip(grids, values, strict=True)) for values in product(*grids.values()))
        return next((drawn for drawn in combinations if drawn and identity(drawn) not in tried), None)


def identity(drawn: dict[str, Any]) -> str:
    """Return a text that is the same for the same draw."""
    return json.dumps(drawn, sort_keys=True)


def _dimension(key: str, space: SearchSpace) -> Dimension:
    where = f"optuna.search_spaces.{key}"
    if space.distribution == "categorical":
        return _categorical(key, space, where)
    if space.low is None or space.high is None:
        raise ConfigError(f"{where}: {space.distribution} needs 'low' and 'high'")
    if space.choices is not None:
        raise ConfigError(f"{where}: 'choices' belong to categorical, not to {space.distribution}")
    if space.low > space.high:
        raise ConfigError(f"{where}: low {space.low} is above high {space.high}")
    log = space.log or space.distribution == "loguniform"
    try:
        if space.distribution == "int":
            low, high, step = (_whole(value, where) for value in (space.low, space.high, space.step or 1))
            return Dimension(key, IntDistribution(low, high, log, step))
        return Dimension(key, FloatDistribution(space.low, space.high, log, space.step))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _whole(value: float, where: str) -> int:
    if value != int(value):
        raise ConfigError(f"{where}: {value} is no whole number; int needs whole numbers")
    return int(value)


def _categorical(key: str, space: SearchSpace, where: str) -> Dimension:
    if not space.choices:
        raise ConfigError(f"{where}: categorical needs 'choices', a list")
    if space.low is not None or space.high is not None or space.step is not None or space.log:
        raise ConfigError(f"{where}: categorical takes 'choices' alone")
    labels = {json.dumps(choice, sort_keys=True): choice for choice in space.choices}
    if len(labels) < len(space.choices):
        raise ConfigError(f"{where}: a choice is given twice")
    # 1, 1.0 and true are equal to Python, and one choice to Optuna
    if all(isinstance(choice, _PLAIN) for choice in space.choices) and len(set(space.choices)) == len(labels):
        return Dimension(key, CategoricalDistribution(space.choices))
    return Dimension(key, CategoricalDistribution(list(labels)), labels)


def with_values(base: Config, values: dict[str, Any]) -> Config:
    """Return a configuration with other values.

    Args:
        base: The resolved configuration.
        values: Dotted key -> value; a part of a key may be a place in a list. Classes come first: another one starts
            from its own defaults.

    Raises:
        ConfigError: If there is no such key; names what is near it.
    """
    config = copy.deepcopy(base)
    for key in sorted(values, key=lambda key: not key.endswith(".class_path")):
        _set(config, key, copy.deepcopy(values[key]))
    return config


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
        raise ConfigError(f"optuna.search_spaces: {key}: {where} is a list of {len(parent)}, counted from 0")
    if not isinstance(parent, dict):
        raise ConfigError(f"optuna.search_spaces: {key}: {where} is {json.dumps(parent)}, and holds no {part!r}")
    # a class within a list of plain values, as in augmentations, need not name all of its arguments
    known = [*parent, *(["init_args"] if "class_path" in parent else []), *_parameters(owner)]
    if part in known:
        return part
    hint = did_you_mean(part, known, where) or f"; there are {', '.join(known)}"
    raise ConfigError(f"optuna.search_spaces: no key {key!r}{hint}")


def _parameters(class_path: str | None) -> list[str]:
    if class_path is None:
        return []
    module, _, name = class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    return list(inspect.signature(found).parameters) if callable(found) else []
