"""From ``optimizer_config`` to an optimizer: which parameters learn at which rate, and which decay."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn, optim

from imgcls.errors import ConfigError
from imgcls.values import check_needed, check_numbers

_CLASSES: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}
_BELONGS = {
    "momentum": {"sgd"},
    "nesterov": {"sgd"},
    "betas": {"adam", "adamw"},
    "eps": {"adam", "adamw"},
    "amsgrad": {"adam", "adamw"},
}
_OURS = {"name", "weight_decay", "layer_decay", "head_multiplier"}  # the rest are torch's own arguments
_FUSED_ON = {"cpu", "cuda"}
_KEY = "model.init_args.optimizer_config"

LR_SCALE = "lr_scale"  # of a group of parameters: its rate over ``lr``; the name is timm's


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its parameters; one left null takes torch's default.

    Args:
        name: The optimizer.
        lr: Learning rate of the head, and of the encoder's last block, at its highest.
        weight_decay: Weight decay of weight matrices and kernels; norms and biases get none.
        layer_decay: The rate of each block of the encoder over that of the block behind it, above 0 to 1; 1 trains all
            at one rate. Blocks are what the network numbers first: stages, or the layers of a transformer
            (layer-wise learning-rate decay, Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT).
        head_multiplier: The head's rate over ``lr``.
        momentum: Momentum, sgd alone.
        nesterov: Nesterov momentum, sgd alone.
        betas: Decay rates of the two moments, adam and adamw alone.
        eps: Term added to the denominator, adam and adamw alone.
        amsgrad: AMSGrad variant, adam and adamw alone.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 3e-4
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    head_multiplier: float = 1.0
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
                    f"{_KEY}.{parameter} does not apply to {self.name!r}, only to {' and '.join(sorted(optimizers))}"
                )
        values = asdict(self)
        check_needed(values, ("lr", "weight_decay", "layer_decay", "head_multiplier"), _KEY)
        check_numbers(values, _KEY)
        if self.nesterov and not self.momentum:
            raise ConfigError(f"{_KEY}.nesterov: true, without momentum; give optimizer_config.momentum too")


def make_optimizer(
    config: OptimizerConfig, blocks: Sequence[Sequence[nn.Parameter]], fused: bool = True
) -> optim.Optimizer:
    """Build the optimizer over the parameters that learn; vectors (norms, biases) are not decayed.

    Args:
        config: What is asked for.
        blocks: The network's parameters by block, from the input up; the head's come last.
        fused: Update all parameters in one kernel, where the device has it. Lightning refuses to clip the gradients
            of such an optimizer under mixed precision.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for scale, parameters in zip(_scales(config, len(blocks)), blocks, strict=True):
        for parameter in parameters:
            if parameter.requires_grad:
                decay = config.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((scale, decay), []).append(parameter)
    options: dict[str, Any] = {
        key: value for key, value in asdict(config).items() if key not in _OURS and value is not None
    }
    devices = {parameter.device.type for parameters in groups.values() for parameter in parameters}
    return _CLASSES[config.name](
        [
            {"params": parameters, "lr": config.lr * scale, LR_SCALE: scale, "weight_decay": decay}
            for (scale, decay), parameters in groups.items()
        ],
        **options,
        fused=(fused and devices <= _FUSED_ON) or None,
    )


def _scales(config: OptimizerConfig, count: int) -> list[float]:
    """Return the learning rate of each block over ``lr``; the last is the head."""
    encoder = [config.layer_decay ** (count - 2 - number) for number in range(count - 1)]
    return [*encoder, config.head_multiplier]
