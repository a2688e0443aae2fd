"""The search space: dotted keys, the values that they may take, as Optuna draws them."""

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

Number = IntDistribution | FloatDistribution

log = logging.getLogger(__name__)

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

    def grid(self) -> Sequence[Any] | None:
        """All that can be drawn, None if it is not countable."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return range(distribution.low, distribution.high + 1, distribution.step)  # no list: it may be any seed
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            low, high, step = distribution.low, distribution.high, distribution.step
            return [min(number * step + low, high) for number in range(round((high - low) / step) + 1)]
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


_OF_THE_SPLIT = (*DIVIDING, "dataset_classes.validation", "train_on_validation")  # the same in all trials
_FIXED = [*(f"data.init_args.{key}" for key in _OF_THE_SPLIT), "trainer.limit_val_batches"]
_NOT_OF_A_TRIAL = ("experiment", "optuna", "ckpt_path", *_FIXED)


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
        spaces = {full_key(key): space for key, space in spaces.items()}
        for key in spaces:
            within = next((fixed for fixed in _FIXED if fixed.startswith(f"{key}.")), None)
            if within is not None:
                raise ConfigError(
                    f"optuna.search_spaces.{key}: holds {within}, which is the same in all trials; name keys within"
                )
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _NOT_OF_A_TRIAL):
                raise ConfigError(f"optuna.search_spaces.{key}: is the same in all trials, so that they compare")
        self.given = {key: vars(space) for key, space in spaces.items()}
        self.dimensions = [_dimension(key, space) for key, space in spaces.items()]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each key."""
        return {item.key: item.distribution for item in self.dimensions}

    def values(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """Return the values for the configuration of what Optuna drew; a trial that was killed meanwhile lacks some."""
        return {item.key: item.value(drawn[item.key]) for item in self.dimensions if item.key in drawn}

    def grids(self) -> dict[str, Sequence[Any]] | None:
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


def short_names(keys: list[str]) -> list[str]:
    """Return the shortest ends of dotted keys that tell them apart; no place in a list alone."""
    parts = [key.split(".") for key in keys]
    names = []
    for own in parts:
        ends = [".".join(own[-count:]) for count in range(1, len(own) + 1) if not own[-count].isdecimal()]
        single = (end for end in ends if sum(f".{key}".endswith(f".{end}") for key in keys) == 1)
        names.append(next(single, ".".join(own)))
    return names


def shown(value: Any) -> str:
    """Return a value in few letters: of a class its name, of a number four digits."""
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    for name, value in (("low", space.low), ("high", space.high)):
        if not math.isfinite(value):
            raise ConfigError(f"{where}: {name} {value} is no finite number")
    if space.low > space.high:
        raise ConfigError(f"{where}: low {space.low} is above high {space.high}")
    try:
        distribution = _number(space, where)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if distribution.high != space.high:
        log.info("%s: %s is the highest value that low and step lead to", where, distribution.high)
    return Dimension(key, distribution)


def _number(space: SearchSpace, where: str) -> Number:
    low, high, step = float(space.low or 0), float(space.high or 0), space.step
    logarithmic = space.log or space.distribution == "loguniform"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The distribution is specified by")  # said by us, with the key
        if space.distribution != "int":
            return FloatDistribution(low, high, logarithmic, step)
        whole = [_whole(value, where) for value in (low, high, 1 if step is None else step)]
        return IntDistribution(whole[0], whole[1], logarithmic, whole[2])


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
