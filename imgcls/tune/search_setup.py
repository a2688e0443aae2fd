"""A search and its checks before the first trial."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from imgcls.config.overrides import Config, with_values
from imgcls.config.sections import Direction, OptunaConfig
from imgcls.errors import ConfigError
from imgcls.runtime.error_messages import reason
from imgcls.tune.search_space import KEY, Space

FitTrial = Callable[[Config, Path, Sequence[Callback]], dict[str, Any] | None]


@dataclass(frozen=True)
class Task:
    """A search.

    Args:
        config: The section ``optuna``.
        metrics: Names of the logged values to optimise.
        directions: ``maximize`` or ``minimize`` for each metric.
        base: The resolved configuration of ``fit`` shared by all trials.
        images: Split -> digest of its images, to detect changed data.
        space: The search space.
        folder: The tune folder.
        name: Name of the study.
        fit: Fits a configuration in a folder with further callbacks; returns the values of the best epoch, None if the
            monitored value was never finite.
        drawn_seed: Whether the seed in ``base`` was drawn; the recorded seed of the study then has priority.
    """

    config: OptunaConfig
    metrics: list[str]
    directions: list[Direction]
    base: Config
    images: dict[str, str]
    space: Space
    folder: Path
    name: str
    fit: FitTrial
    drawn_seed: bool


def check_values(space: Space, base: Config, check: Callable[[Config], None]) -> None:
    """Check every key, and representative values of it, before the first trial.

    Raises:
        ConfigError: Names the key and the value.
    """
    for dimension in space.dimensions:
        with_values(base, {dimension.key: None}, KEY)  # all keys first, because this is fast
    for dimension in space.dimensions:
        for value in dimension.probes():
            error = _error_of(base, {dimension.key: value}, check)
            if error is not None and not _fits_another_key(space, base, {dimension.key: value}, check):
                raise ConfigError(f"{KEY}.{dimension.key}: {value!r}: {reason(error)}") from error


def _error_of(base: Config, values: dict[str, Any], check: Callable[[Config], None]) -> Exception | None:
    try:
        check(with_values(base, values, KEY))
    except Exception as error:
        return error
    return None


def _fits_another_key(space: Space, base: Config, values: dict[str, Any], check: Callable[[Config], None]) -> bool:
    """Whether a value that is invalid in the configuration is valid together with a value of another key."""
    others = [(item.key, probe) for item in space.dimensions if item.key not in values for probe in item.probes()]
    return any(_error_of(base, values | {key: probe}, check) is None for key, probe in others)
