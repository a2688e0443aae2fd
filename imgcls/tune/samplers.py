"""Optuna's samplers and pruners by name, and a sampler that draws no combination twice."""

import logging
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from imgcls.config.sections import OptunaConfig
from imgcls.errors import ConfigError
from imgcls.runtime.seeding import derive_seed
from imgcls.tune.search_space import KEY, Space, identity

log = logging.getLogger(__name__)

_TRIES = 20  # draws before falling back to the first untried combination


def make_sampler(config: OptunaConfig, space: Space, number: int) -> BaseSampler:
    """Build the sampler for one trial.

    Its seed depends on the number of the trial, so that a resumed search and several workers draw what a single
    uninterrupted process would draw.

    Args:
        config: The section ``optuna``.
        space: The search space.
        number: Number of trials so far.

    Raises:
        ConfigError: If the sampler does not support the space.
    """
    seed = derive_seed(config.seed, number) % 2**32
    match config.sampler:
        case "tpe":
            sampler: BaseSampler = TPESampler(seed=seed)
        case "random":
            sampler = RandomSampler(seed=seed)
        case "gp":
            sampler = GPSampler(seed=seed)
        case "nsga2":
            sampler = NSGAIISampler(seed=seed)
        case "nsga3":
            sampler = NSGAIIISampler(seed=seed)
        case "qmc":  # one sequence for all trials, which it continues by itself
            sampler = QMCSampler(seed=config.seed, scramble=True, warn_independent_sampling=False)
        case "grid":
            sampler = GridSampler(_grids(space), seed=config.seed)
    return sampler


def _grids(space: Space) -> dict[str, list[Any]]:
    for dimension in space.dimensions:
        if dimension.grid() is None:
            raise ConfigError(f"{KEY}.{dimension.key}: the grid sampler requires 'step' or 'choices'")
    return {key: list(grid) for key, grid in (space.grids() or {}).items()}


def make_pruner(config: OptunaConfig, max_epochs: int | None) -> BasePruner:
    """Build the pruner.

    Args:
        config: The section ``optuna``.
        max_epochs: Epochs of a trial.
    """
    is_multi_objective = isinstance(config.metric, list) and len(config.metric) > 1
    if is_multi_objective and config.pruner != "none":
        log.info("optuna.pruner: %s is ignored, since Optuna does not prune with several metrics", config.pruner)
    if is_multi_objective or config.pruner == "none":
        return NopPruner()
    if config.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(max_epochs or 1, 1))
    return MedianPruner(n_startup_trials=4, n_warmup_steps=0)


class DistinctSampler(BaseSampler):
    """Draw from another sampler until the combination is new, since a repeated fit would give the same value.

    Args:
        sampler: The sampler.
        space: The search space.
        study: The whole study; Optuna may pass a part of it, with the trials of one bracket of Hyperband.
    """

    def __init__(self, sampler: BaseSampler, space: Space, study: optuna.Study) -> None:
        self.sampler = sampler
        self.space = space
        self.study = study

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all keys, which are drawn together."""
        return self.space.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw all values."""
        trials = self.study.get_trials(deepcopy=False)
        tried = {identity(other.params) for other in trials if other.number != trial.number}
        trial = trials[trial.number]  # reloaded, because GridSampler has stored its position in it
        for _ in range(_TRIES):
            drawn = self._draw(study, trial)
            if identity(drawn) not in tried:
                return drawn
        return self.space.untried(tried) or drawn

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Call the sampler's hook."""
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Call the sampler's hook, except GridSampler's, which would stop ``study.optimize``."""
        if not isinstance(self.sampler, GridSampler):
            self.sampler.after_trial(study, trial, state, values)

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        related = self.sampler.infer_relative_search_space(study, trial)
        drawn = self.sampler.sample_relative(study, trial, related)
        for name, distribution in self.space.distributions.items():
            if name not in drawn:
                drawn[name] = self.sampler.sample_independent(study, trial, name, distribution)
        return {name: drawn[name] for name in self.space.distributions}
