"""From ``scheduler_config`` to a learning-rate schedule."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from imgcls.errors import ConfigError
from imgcls.models.training.values import check_numbers

log = logging.getLogger(__name__)

_KEY = "model.init_args.scheduler_config"
_NEEDED_BY = {"step_epochs": {"step"}, "patience": {"plateau"}, "factor": {"step", "plateau"}}
_ENDLESS = {"constant", "step", "plateau"}  # schedules that do not look at the run's end
_ONE_CYCLE_RISE = 0.3  # torch's default share of the steps


@dataclass(frozen=True)
class SchedulerConfig:
    """How the learning rate moves, step by step.

    Args:
        name: ``cosine`` falls to 0 at the end of the run, ``linear`` likewise, ``constant`` stays; ``onecycle`` rises
            from 1/25 of the rate and falls to almost 0, with momentum as it is configured (Smith and Topin 2018);
            ``step`` is multiplied by ``factor`` after every ``step_epochs``; ``plateau`` is multiplied by ``factor``
            when ``validation_loss`` has not improved for more than ``patience`` validations.
        warmup_epochs: Epochs, fractions included, in which the rate rises, from 1 / (steps of the warm-up + 1)
            (``onecycle``: from 1/25); null: 1, for ``onecycle`` 30 % of the run, for ``plateau`` none. At most half of
            the run.
        step_epochs: Epochs between two steps, ``step`` alone; null: 10.
        factor: What the rate is multiplied by, above 0 and below 1, ``step`` and ``plateau`` alone; null: 0.1.
        patience: Validations without improvement that are waited for, ``plateau`` alone; null: 3.
    """

    name: Literal["cosine", "linear", "constant", "onecycle", "step", "plateau"] = "cosine"
    warmup_epochs: float | None = None
    step_epochs: float | None = None
    factor: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuse a parameter that the named schedule does not have, and a value that makes no schedule."""
        for parameter, schedules in _NEEDED_BY.items():
            if getattr(self, parameter) is not None and self.name not in schedules:
                raise ConfigError(
                    f"{_KEY}.{parameter} does not apply to {self.name!r}, only to {' and '.join(sorted(schedules))}"
                )
        if self.name == "plateau" and self.warmup_epochs:
            raise ConfigError(f"{_KEY}.warmup_epochs does not apply to 'plateau', which starts at the full rate")
        check_numbers(asdict(self), _KEY)


def make_scheduler(
    config: SchedulerConfig, optimizer: Optimizer, total_steps: float, steps_per_epoch: float
) -> LRScheduler:
    """Build the schedule over all steps of the run; not ``plateau``, which waits for validations.

    Args:
        config: What is asked for.
        optimizer: Its groups hold their highest rates.
        total_steps: Optimizer steps of the run; infinite where it has no end.
        steps_per_epoch: Optimizer steps of an epoch.

    Raises:
        ConfigError: If the schedule needs the run's end, and there is none.
    """
    if math.isinf(total_steps) and config.name not in _ENDLESS:
        raise ConfigError(
            f"{_KEY}.name: {config.name!r} needs the run's end; give trainer.max_epochs or max_steps, or take "
            f"{' or '.join(repr(name) for name in sorted(_ENDLESS))}"
        )
    warmup = _warmup(config, total_steps, steps_per_epoch)
    if config.name == "onecycle":
        steps = max(2, int(total_steps))  # of a single one torch takes the end's rate
        return _OneCycle(optimizer, steps, _ONE_CYCLE_RISE if warmup is None else warmup / total_steps)
    return LambdaLR(optimizer, _multiplier(config, warmup or 0, total_steps, steps_per_epoch))


def _warmup(config: SchedulerConfig, total_steps: float, steps_per_epoch: float) -> int | None:
    """Return the steps of the warm-up; None for that of torch's one-cycle schedule."""
    if config.warmup_epochs is None:
        return None if config.name == "onecycle" else int(min(round(steps_per_epoch), total_steps // 2))
    wanted = round(config.warmup_epochs * steps_per_epoch)
    warmup = int(min(wanted, total_steps // 2))
    if warmup < wanted:
        log.info("%s.warmup_epochs: cut to %d steps, half of the run", _KEY, warmup)
    return 0 if config.name == "onecycle" and warmup == 1 else warmup  # where torch divides 0 by 0


class _OneCycle(OneCycleLR):
    """torch's schedule, but with momentum left as it is configured, and of the run's own length after a resume."""

    _OF_THE_RUN = ("total_steps", "_schedule_phases")

    def __init__(self, optimizer: Optimizer, total_steps: int, rise: float) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, rates, total_steps, pct_start=rise, cycle_momentum=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in self._OF_THE_RUN})


def _multiplier(
    config: SchedulerConfig, warmup: int, total_steps: float, steps_per_epoch: float
) -> Callable[[int], float]:
    def multiplier(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup + 1))  # above 0 from the first step on
        done = min(1.0, max(0, step - warmup) / max(1, total_steps - warmup))  # share of the way from there to the end
        if config.name == "step":
            drops = int(step // ((config.step_epochs or 10) * steps_per_epoch))
            return float(rise * (config.factor or 0.1) ** drops)
        fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return rise * fall[config.name]

    return multiplier


def make_plateau(config: SchedulerConfig, optimizer: Optimizer) -> ReduceLROnPlateau:
    """Make what lowers the rates when the validation loss stands still.

    Lightning steps it once too little after each resume (2.6), so the model steps it, and keeps its state.

    Args:
        config: What is asked for.
        optimizer: The optimizer.
    """
    patience = 3 if config.patience is None else config.patience
    return ReduceLROnPlateau(optimizer, factor=config.factor or 0.1, patience=patience)
