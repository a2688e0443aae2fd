"""How values are chosen and bad trials are ended: Optuna's samplers and pruners, and no draw twice."""

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
from imgcls.runtime.seeding import mix
from imgcls.tune.search_space import Space, identity

log = logging.getLogger(__name__)

_TRIES = 20  # draws, before the first untried combination is taken


def make_sampler(config: OptunaConfig, space: Space, number: int) -> BaseSampler:
    """Build the sampler that draws one trial.

    Each trial has a seed of its own, so that a search that is started again, or has several workers, draws what one
    that runs through would draw, and never the same again.

    Args:
        config: The section ``optuna``.
        space: The keys of the search.
        number: Number of trials so far.

    Raises:
        ConfigError: If the sampler cannot draw from the space.
    """
    seed = mix(config.seed, number) % 2**32
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
        case "qmc":  # goes on in its sequence by itself, which one seed gives
            sampler = QMCSampler(seed=config.seed, scramble=True, warn_independent_sampling=False)
        case "grid":
            sampler = GridSampler(_grids(space), seed=config.seed)
    return sampler


def _grids(space: Space) -> dict[str, list[Any]]:
    for dimension in space.dimensions:
        if dimension.grid() is None:
            raise ConfigError(f"optuna.search_spaces.{dimension.key}: sampler grid needs 'step' or 'choices'")
    return {key: list(grid) for key, grid in (space.grids() or {}).items()}


def make_pruner(config: OptunaConfig, max_epochs: int | None) -> BasePruner:
    """Build the pruner.

    Args:
        config: The section ``optuna``.
        max_epochs: Epochs of a whole trial.
    """
    several = isinstance(config.metric, list) and len(config.metric) > 1
    if several and config.pruner != "none":
        log.info("optuna.pruner: %s prunes by one value; with several metrics no trial is pruned", config.pruner)
    if several or config.pruner == "none":
        return NopPruner()
    if config.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(max_epochs or 1, 1))
    return MedianPruner(n_startup_trials=4, n_warmup_steps=0)


class DistinctSampler(BaseSampler):
    """Draws by another sampler, and again where the draw was tried before: the same fit would give the same value.

    Args:
        sampler: Draws.
        space: The keys of the search, all of which every trial has.
        study: The whole study; what Optuna hands over may be a part of it, with the trials of one bracket of hyperband.
    """

    def __init__(self, sampler: BaseSampler, space: Space, study: optuna.Study) -> None:
        self.sampler = sampler
        self.space = space
        self.study = study

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all keys: they are drawn together, here."""
        return self.space.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw all values."""
        trials = self.study.get_trials(deepcopy=False)
        tried = {identity(other.params) for other in trials if other.number != trial.number}
        trial = trials[trial.number]  # as it is now: the sampler of a grid has written its place into it
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
        """Let the sampler prepare."""
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let the sampler finish; that of a grid would stop a loop of Optuna's own, which there is not."""
        if not isinstance(self.sampler, GridSampler):
            self.sampler.after_trial(study, trial, state, values)

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        related = self.sampler.infer_relative_search_space(study, trial)
        drawn = self.sampler.sample_relative(study, trial, related)
        for name, distribution in self.space.distributions.items():
            if name not in drawn:
                drawn[name] = self.sampler.sample_independent(study, trial, name, distribution)
        return {name: drawn[name] for name in self.space.distributions}
