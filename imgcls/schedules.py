"""From ``scheduler_config`` to a learning-rate schedule."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from transformers import get_scheduler

from imgcls.errors import ConfigError
from imgcls.values import check_numbers

_KEY = "model.init_args.scheduler_config"
_NEEDED_BY = {"step_epochs": {"step"}, "patience": {"plateau"}, "factor": {"step", "plateau"}}
_ONE_CYCLE_RISE = 0.3  # torch's default share of the steps


@dataclass(frozen=True)
class SchedulerConfig:
    """How the learning rate moves, step by step.

    Args:
        name: ``cosine`` falls to 0 at the end of the run, ``linear`` likewise, ``constant`` stays; ``onecycle`` rises
            from 1/25 of the rate and falls to almost 0 (Smith and Topin 2018); ``step`` is multiplied by ``factor``
            after every ``step_epochs``; ``plateau`` is multiplied by ``factor`` when ``validation_loss`` has not
            improved for more than ``patience`` validations.
        warmup_epochs: Epochs, fractions included, in which the rate rises from 0 (``onecycle``: from 1/25); null: 1,
            for ``onecycle`` 30 % of the run, for ``plateau`` none.
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
    config: SchedulerConfig, optimizer: Optimizer, total_steps: int, steps_per_epoch: float
) -> LRScheduler:
    """Build the schedule over all steps of the run; not ``plateau``, which waits for validations.

    Args:
        config: What is asked for.
        optimizer: Its groups hold their highest rates.
        total_steps: Optimizer steps of the run.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    epochs = 1.0 if config.warmup_epochs is None else config.warmup_epochs
    warmup = min(round(epochs * steps_per_epoch), total_steps // 2)
    if config.name == "onecycle":
        rise = _ONE_CYCLE_RISE if config.warmup_epochs is None else max(warmup, 1) / total_steps
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps, pct_start=rise)
    if config.name == "step":
        return LambdaLR(optimizer, _steps(config, warmup, steps_per_epoch))
    name = "constant_with_warmup" if config.name == "constant" else config.name
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)  # type: ignore[no-any-return]


def _steps(config: SchedulerConfig, warmup: int, steps_per_epoch: float) -> Callable[[int], float]:
    every = (config.step_epochs or 10) * steps_per_epoch
    factor = config.factor or 0.1

    def multiplier(step: int) -> float:
        rise = (step + 1) / (warmup + 1) if step < warmup else 1.0
        return float(rise * factor ** int(step // every))

    return multiplier


class Plateau:
    """Lowers the rates when the validation loss stands still, and keeps its state over a resume.

    Lightning steps torch's ReduceLROnPlateau once too little after each resume (2.6), so it is stepped by the model.

    Args:
        config: What is asked for.
        optimizer: The optimizer.
    """

    def __init__(self, config: SchedulerConfig, optimizer: Optimizer) -> None:
        patience = 3 if config.patience is None else config.patience
        self._scheduler = ReduceLROnPlateau(optimizer, factor=config.factor or 0.1, patience=patience)

    def step(self, validation_loss: float) -> None:
        """Take the loss of a validation."""
        self._scheduler.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return dict(self._scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._scheduler.load_state_dict(state)
