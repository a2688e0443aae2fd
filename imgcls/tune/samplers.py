"""Optuna's samplers by name, and a sampler that draws no combination twice."""

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
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

_SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "gp": GPSampler,
    "nsga2": NSGAIISampler,
    "nsga3": NSGAIIISampler,
}
_TRIES = 20  # draws before falling back to the first untried combination


def make_sampler(config: OptunaConfig, space: Space, number: int) -> BaseSampler:
    """Build the sampler for one trial.

    Its seed depends on the number of trials so far, so that a resumed search and several workers draw what a single
    uninterrupted process would draw.

    Raises:
        ConfigError: If the sampler does not support the space.
    """
    if config.sampler == "qmc":  # one sequence for all trials, which it continues by itself
        return QMCSampler(seed=config.seed, scramble=True, warn_independent_sampling=False)
    if config.sampler == "grid":
        return GridSampler(_grids(space), seed=config.seed)
    return _SAMPLERS[config.sampler](seed=derive_seed(config.seed, number) % 2**32)


def _grids(space: Space) -> dict[str, list[Any]]:
    grids = {}
    for dimension in space.dimensions:
        if (grid := dimension.grid()) is None:
            raise ConfigError(f"{KEY}.{dimension.key}: the grid sampler requires 'step' or 'choices'")
        grids[dimension.key] = list(grid)
    return grids


class DistinctSampler(BaseSampler):
    """Draw from another sampler until the combination is new, since a repeated fit would give the same value.

    ``study`` is the whole study; Optuna may pass a part of it, with the trials of one bracket of Hyperband.
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
