"""From ``optimizer_config`` and ``scheduler_config`` to an optimizer and a learning-rate schedule."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from imgcls.errors import ConfigError

_CLASSES: dict[str, type[optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}
_BELONGS = {
    "momentum": {"sgd"},
    "nesterov": {"sgd"},
    "betas": {"adam", "adamw"},
    "eps": {"adam", "adamw"},
    "amsgrad": {"adam", "adamw"},
}
_VALUES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda value: value > 0, "above 0"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
    "momentum": (lambda value: value >= 0, "at least 0"),
    "betas": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "eps": (lambda value: value > 0, "above 0"),
    "warmup_epochs": (lambda value: value >= 0, "at least 0"),
}


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its parameters; one left null takes torch's default.

    Args:
        name: The optimizer.
        lr: Learning rate at its highest.
        weight_decay: Weight decay of weight matrices and kernels; norms and biases get none.
        momentum: Momentum, sgd alone.
        nesterov: Nesterov momentum, sgd alone.
        betas: Decay rates of the two moments, adam and adamw alone.
        eps: Term added to the denominator, adam and adamw alone.
        amsgrad: AMSGrad variant, adam and adamw alone.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 3e-4
    weight_decay: float = 0.05
    momentum: float | None = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    amsgrad: bool | None = None

    def __post_init__(self) -> None:
        """Refuse a parameter that the named optimizer does not have, and a value that it does not take."""
        for parameter, optimizers in _BELONGS.items():
            if getattr(self, parameter) is not None and self.name not in optimizers:
                raise ConfigError(
                    f"model.init_args.optimizer_config.{parameter} does not apply to {self.name!r}, "
                    f"only to {' and '.join(sorted(optimizers))}"
                )
        _check_values(self, "optimizer_config")
        if self.nesterov and not self.momentum:
            raise ConfigError(
                "model.init_args.optimizer_config.nesterov: true, without momentum; give optimizer_config.momentum too"
            )


@dataclass(frozen=True)
class SchedulerConfig:
    """How the learning rate moves, step by step.

    Args:
        name: ``cosine`` falls to 0 at the end of the run, ``linear`` likewise, ``constant`` stays.
        warmup_epochs: Epochs, fractions included, in which the rate rises from 0.
    """

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a value that makes no schedule."""
        _check_values(self, "scheduler_config")


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Build the optimizer over the parameters that learn; vectors (norms, biases) are not decayed."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {
        key: value for key, value in asdict(config).items() if key not in {"name", "weight_decay"} and value is not None
    }
    return _CLASSES[config.name]([group for group in groups if group["params"]], **options)


def make_scheduler(
    config: SchedulerConfig, optimizer: optim.Optimizer, total_steps: int, steps_per_epoch: float
) -> LRScheduler:
    """Build the schedule over all steps of the run."""
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total_steps // 2)
    name = "constant_with_warmup" if config.name == "constant" else config.name
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)  # type: ignore[no-any-return]


_NEEDED = ("lr", "weight_decay", "warmup_epochs")  # no null, which the parser lets through from a file


def _check_values(config: OptimizerConfig | SchedulerConfig, section: str) -> None:
    for name, value in asdict(config).items():
        if value is None and name in _NEEDED:
            raise ConfigError(f"model.init_args.{section}.{name}: null; give a number")
        if value is None or name not in _VALUES:
            continue
        fits, rule = _VALUES[name]
        numbers = value if isinstance(value, (tuple, list)) else [value]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError(f"model.init_args.{section}.{name}: {value}; it must be a finite number")
        if not all(map(fits, numbers)):
            raise ConfigError(f"model.init_args.{section}.{name}: {value}; it must be {rule}")
