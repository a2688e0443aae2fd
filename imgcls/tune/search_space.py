"""The search space: dotted keys and Optuna's distribution of each."""

import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from imgcls.config.overrides import full_key
from imgcls.config.sections import DIVIDING, SearchSpace
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

KEY = "optuna.search_spaces"
_EXAMPLE = "--optuna.search_spaces '{model.optimizer_config.lr: {distribution: loguniform, low: 1.0e-5, high: 1.0e-3}}'"
_SCALARS = (str, int, float, bool)


@dataclass(frozen=True)
class Dimension:
    """One key of the search.

    Args:
        key: The dotted key.
        distribution: Optuna's distribution; of choices that are not all scalars, over their JSON strings.
        labels: JSON string -> choice.
    """

    key: str
    distribution: BaseDistribution
    labels: dict[str, Any] = field(default_factory=dict)

    def value(self, drawn: Any) -> Any:
        """Return the configuration value of what Optuna drew."""
        return self.labels[drawn] if self.labels else drawn

    def grid(self) -> Sequence[Any] | None:
        """Return all values that can be drawn; None if they are continuous."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return range(distribution.low, distribution.high + 1, distribution.step)  # not a list: it may be all seeds
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            low, high, step = distribution.low, distribution.high, distribution.step
            return [min(number * step + low, high) for number in range(round((high - low) / step) + 1)]
        return None

    def probes(self) -> list[Any]:
        """Return representative values: every choice, or the lowest, highest and middle number."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return [self.value(choice) for choice in distribution.choices]
        low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
        if isinstance(distribution, IntDistribution):
            middle = low + (high - low) // 2 // distribution.step * distribution.step
        else:
            middle = (low + high) / 2
        return list(dict.fromkeys([low, high, middle]))


# keys that must be the same in all trials, so that their values are comparable
_SPLIT_KEYS = (*DIVIDING, "dataset_classes.validation", "train_on_validation")
_FIXED = [*(f"data.init_args.{key}" for key in _SPLIT_KEYS), "trainer.limit_val_batches"]
_NOT_SEARCHABLE = ("experiment", "optuna", "ckpt_path", *_FIXED)


class Space:
    """All dimensions of a search: dotted keys and their search spaces.

    Raises:
        ConfigError: If there is none, or one is invalid.
    """

    def __init__(self, spaces: dict[str, SearchSpace]) -> None:
        if not spaces:
            raise ConfigError(f"{KEY} is empty; add a key, for example: {_EXAMPLE}")
        spaces = {full_key(key): space for key, space in spaces.items()}
        for key in spaces:
            within = next((fixed for fixed in _FIXED if fixed.startswith(f"{key}.")), None)
            if within is not None:
                raise ConfigError(
                    f"{KEY}.{key}: contains {within}, which must be the same in all trials; search keys below {key}"
                )
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _NOT_SEARCHABLE):
                raise ConfigError(f"{KEY}.{key}: must be the same in all trials, so that their values are comparable")
        self.given = {key: vars(space) for key, space in spaces.items()}
        self.dimensions = [_dimension(key, space) for key, space in spaces.items()]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Dotted key -> Optuna's distribution."""
        return {item.key: item.distribution for item in self.dimensions}

    def values(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration values of what Optuna drew; a trial killed while drawing lacks some."""
        return {item.key: item.value(drawn[item.key]) for item in self.dimensions if item.key in drawn}

    def grids(self) -> dict[str, Sequence[Any]] | None:
        """Return all values of each key; None if one is continuous."""
        grids = {item.key: item.grid() for item in self.dimensions}
        found = {key: grid for key, grid in grids.items() if grid is not None}
        return found if len(found) == len(grids) else None

    def size(self) -> int | None:
        """Return the number of combinations; None if a key is continuous."""
        grids = self.grids()
        return None if grids is None else prod(map(len, grids.values()))

    def untried(self, tried: set[str]) -> dict[str, Any] | None:
        """Return the first combination not drawn yet; None if there is none or a key is continuous."""
        grids = self.grids() or {}
        combinations = (dict(zip(grids, values, strict=True)) for values in product(*grids.values()))
        return next((drawn for drawn in combinations if drawn and identity(drawn) not in tried), None)


def short_names(keys: list[str]) -> list[str]:
    """Return the shortest unique suffixes of dotted keys, which are more than a list index."""
    parts = [key.split(".") for key in keys]
    names = []
    for own in parts:
        ends = [".".join(own[-count:]) for count in range(1, len(own) + 1) if not own[-count].isdecimal()]
        single = (end for end in ends if sum(f".{key}".endswith(f".{end}") for key in keys) == 1)
        names.append(next(single, ".".join(own)))
    return names


def shown(value: Any) -> str:
    """Format a value briefly: the name of a class, four digits of a number."""
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def identity(drawn: dict[str, Any]) -> str:
    """Return a string that is equal for equal parameters."""
    return json.dumps(drawn, sort_keys=True)


def _dimension(key: str, space: SearchSpace) -> Dimension:
    where = f"{KEY}.{key}"
    if space.distribution == "categorical":
        return _categorical(key, space, where)
    if space.low is None or space.high is None:
        raise ConfigError(f"{where}: {space.distribution} requires 'low' and 'high'")
    if space.choices is not None:
        raise ConfigError(f"{where}: 'choices' requires distribution: categorical, got {space.distribution}")
    for name, value in (("low", space.low), ("high", space.high)):
        if not math.isfinite(value):
            raise ConfigError(f"{where}.{name} must be finite, got {value}")
    if space.low > space.high:
        raise ConfigError(f"{where}.low must be at most high, {space.high}, got {space.low}")
    try:
        distribution = _number(space, where)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if distribution.high != space.high:
        log.info("%s: %s is the highest value reached from low in whole steps", where, distribution.high)
    return Dimension(key, distribution)


def _number(space: SearchSpace, where: str) -> IntDistribution | FloatDistribution:
    low, high, step = float(space.low or 0), float(space.high or 0), space.step
    logarithmic = space.log or space.distribution == "loguniform"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The distribution is specified by")  # we report it with the key
        if space.distribution != "int":
            return FloatDistribution(low, high, logarithmic, step)
        whole = [_whole(value, where) for value in (low, high, 1 if step is None else step)]
        return IntDistribution(whole[0], whole[1], logarithmic, whole[2])


def _whole(value: float, where: str) -> int:
    if value != int(value):
        raise ConfigError(f"{where}: distribution int requires integers, got {value}")
    return int(value)


def _categorical(key: str, space: SearchSpace, where: str) -> Dimension:
    if not space.choices:
        raise ConfigError(f"{where}: categorical requires a list of 'choices'")
    if space.low is not None or space.high is not None or space.step is not None or space.log:
        raise ConfigError(f"{where}: categorical takes only 'choices'")
    labels = {json.dumps(choice, sort_keys=True): choice for choice in space.choices}
    if len(labels) < len(space.choices):
        raise ConfigError(f"{where}: choices must be distinct")
    # 1, 1.0 and True are equal and would be one choice for Optuna
    if all(isinstance(choice, _SCALARS) for choice in space.choices) and len(set(space.choices)) == len(labels):
        return Dimension(key, CategoricalDistribution(space.choices))
    return Dimension(key, CategoricalDistribution(list(labels)), labels)
