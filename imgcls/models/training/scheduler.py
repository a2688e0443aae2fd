"""Learning-rate schedules, all stepped per optimizer step except ``plateau``."""

import logging
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from imgcls.config.sections import check_owners, section
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

_KEY = "model.init_args.scheduler_config"
_OWNERS = {"step_epochs": {"step"}, "patience": {"plateau"}, "factor": {"step", "plateau"}}
_ENDLESS = {"constant", "step", "plateau"}  # schedules that do not depend on the number of steps of the run
_ONE_CYCLE_RISE = 0.3  # torch's default fraction of the steps


@dataclass(frozen=True, config=section("scheduler_config", "model.init_args"))
class SchedulerConfig:
    """The learning-rate schedule.

    Args:
        name: ``cosine`` and ``linear`` fall to 0 at the end of the run, ``constant`` stays; ``onecycle`` rises from
            1/25 of the rate and falls to almost 0, with constant momentum (Smith and Topin 2018); ``step`` multiplies
            by ``factor`` every ``step_epochs``; ``plateau`` multiplies by ``factor`` when ``validation_loss`` has not
            improved for more than ``patience`` validations.
        warmup_epochs: Epochs, fractions included, in which the rate rises linearly from 1 / (warm-up steps + 1)
            (``onecycle``: from 1/25), at most half of the run. Default: 1; ``onecycle``: 30 % of the run; ``plateau``:
            none.
        step_epochs: Epochs between two steps, only for ``step``. Default: 10.
        factor: Multiplier, above 0 and below 1, only for ``step`` and ``plateau``. Default: 0.1.
        patience: Validations without improvement that are tolerated, only for ``plateau``. Default: 3.
    """

    name: Literal["cosine", "linear", "constant", "onecycle", "step", "plateau"] = "cosine"
    warmup_epochs: Annotated[float | None, Field(ge=0)] = None
    step_epochs: Annotated[float | None, Field(gt=0)] = None
    factor: Annotated[float | None, Field(gt=0, lt=1)] = None
    patience: Annotated[int | None, Field(ge=0)] = None

    def __post_init__(self) -> None:
        """Check the parameters against the named schedule."""
        check_owners(vars(self), _KEY, _OWNERS)
        if self.name == "plateau" and self.warmup_epochs:
            raise ValueError(f"{_KEY}.warmup_epochs does not apply to 'plateau', which starts at the full rate")


def make_scheduler(
    config: SchedulerConfig, optimizer: Optimizer, total_steps: float, steps_per_epoch: float
) -> LRScheduler:
    """Build the schedule over all steps of the run, except ``plateau``.

    Args:
        config: The section ``scheduler_config``.
        optimizer: The optimizer, whose groups have their peak rates.
        total_steps: Optimizer steps of the run; infinite if it has no end.
        steps_per_epoch: Optimizer steps per epoch.

    Raises:
        ConfigError: If the schedule depends on the number of steps of an endless run.
    """
    if math.isinf(total_steps) and config.name not in _ENDLESS:
        raise ConfigError(
            f"{_KEY}.name: {config.name!r} requires a run with an end; set trainer.max_epochs or max_steps, or use "
            f"{' or '.join(repr(name) for name in sorted(_ENDLESS))}"
        )
    warmup = _warmup(config, total_steps, steps_per_epoch)
    if config.name == "onecycle":
        steps = max(2, int(total_steps))  # for a single step torch uses the final rate
        return _OneCycle(optimizer, steps, _ONE_CYCLE_RISE if warmup is None else warmup / total_steps)
    return LambdaLR(optimizer, _multiplier(config, warmup or 0, total_steps, steps_per_epoch))


def _warmup(config: SchedulerConfig, total_steps: float, steps_per_epoch: float) -> int | None:
    """Return the number of warm-up steps; None for torch's default of the one-cycle schedule."""
    if config.warmup_epochs is None:
        return None if config.name == "onecycle" else int(min(round(steps_per_epoch), total_steps // 2))
    wanted = round(config.warmup_epochs * steps_per_epoch)
    warmup = int(min(wanted, total_steps // 2))
    if warmup < wanted:
        log.info("%s.warmup_epochs: limited to %d steps, half of the run", _KEY, warmup)
    return 0 if config.name == "onecycle" and warmup == 1 else warmup  # torch 2.14 divides by 0 for one step


class _OneCycle(OneCycleLR):
    """torch's schedule with constant momentum, which keeps the current length of the run on resume."""

    _OF_THE_RUN = ("total_steps", "_schedule_phases")

    def __init__(self, optimizer: Optimizer, total_steps: int, rise: float) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, rates, total_steps, pct_start=rise, cycle_momentum=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state except for the length of the run."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in self._OF_THE_RUN})


def _multiplier(
    config: SchedulerConfig, warmup: int, total_steps: float, steps_per_epoch: float
) -> Callable[[int], float]:
    def multiplier(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup + 1))  # above 0 from the first step
        done = min(1.0, max(0, step - warmup) / max(1, total_steps - warmup))  # fraction of the steps after the warm-up
        if config.name == "step":
            drops = int(step // ((config.step_epochs or 10) * steps_per_epoch))
            return float(rise * (config.factor or 0.1) ** drops)
        fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return rise * fall[config.name]

    return multiplier


def make_plateau(config: SchedulerConfig, optimizer: Optimizer) -> ReduceLROnPlateau:
    """Build the schedule ``plateau``.

    The model steps it and saves its state, because Lightning 2.6 skips one step after each resume.
    """
    patience = 3 if config.patience is None else config.patience
    return ReduceLROnPlateau(optimizer, factor=config.factor or 0.1, patience=patience)
