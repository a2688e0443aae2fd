"""From ``optimizer_config`` to an optimizer: which parameters learn at which rate, and which decay."""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn, optim

from imgcls.errors import ConfigError
from imgcls.models.training.values import check_needed, check_numbers

_CLASSES: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}
_BELONGS = {
    "momentum": {"sgd"},
    "nesterov": {"sgd"},
    "betas": {"adam", "adamw"},
    "eps": {"adam", "adamw"},
    "amsgrad": {"adam", "adamw"},
}
_OURS = {"name", "lr", "weight_decay", "layer_decay", "head_multiplier"}  # the rest are torch's own arguments
_FUSED_ON = {"cpu", "cuda"}
_KEY = "model.init_args.optimizer_config"
# whether BatchNorm follows the weights
_LR = {True: 1e-3, False: 3e-4}
_LAYER_DECAY = {True: 0.9, False: 0.75}
_WEIGHT_DECAY = {"adamw": 0.05, "sgd": 1e-4, "adam": 0.0}
_LOWEST_SCALE = 0.1  # of the first block's rate over ``lr``, where layer_decay is chosen

LR_SCALE = "lr_scale"  # of a group of parameters: its rate over ``lr``; the name is timm's


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its parameters; null is torch's default, but for ``lr``, ``weight_decay`` and ``layer_decay``.

    Args:
        name: The optimizer.
        lr: Learning rate of the head, and of the encoder's last block, at its highest; sgd needs one. Null: 1e-3
            where most norms of the network are BatchNorm, after which the size of weights does not count, so that a
            high rate is tolerated (van Laarhoven 2017), else 3e-4.
        weight_decay: Weight decay of weight matrices and kernels; norms, biases, tokens and tables of positions get
            none. Null: 0.05 for adamw, 1e-4 for sgd (He et al. 2016, ResNet), none for adam, which would divide it as
            it does the gradient.
        layer_decay: The rate of each block of the encoder over that of the block behind it, above 0 to 1; 1 trains all
            at one rate. Blocks are what the network numbers first: stages, or the layers of a transformer
            (layer-wise learning-rate decay, Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT). Null: 1 from random
            weights; from pretrained ones 0.9 where most norms are BatchNorm, else 0.75, or more where there are so many
            blocks that the first would learn at less than a tenth of ``lr``.
        head_multiplier: The head's rate over ``lr``.
        momentum: Momentum, sgd alone.
        nesterov: Nesterov momentum, sgd alone.
        betas: Decay rates of the two moments, adam and adamw alone.
        eps: Term added to the denominator, adam and adamw alone.
        amsgrad: AMSGrad variant, adam and adamw alone.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    layer_decay: float | None = None
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
        check_needed(values, ("head_multiplier",), _KEY)
        check_numbers(values, _KEY)
        if self.lr is None and self.name == "sgd":
            raise ConfigError(f"{_KEY}.lr: none is chosen for 'sgd'; give one, such as 0.01")
        if self.nesterov and not self.momentum:
            raise ConfigError(f"{_KEY}.nesterov: true, without momentum; give optimizer_config.momentum too")


@dataclass(frozen=True)
class Rates:
    """The rates at which a network learns and forgets.

    Args:
        lr: Learning rate of the head, but for ``head_multiplier``, and of the encoder's last block.
        weight_decay: Weight decay.
        layer_decay: Learning rate of each block over that of the block behind it.
    """

    lr: float
    weight_decay: float
    layer_decay: float


def choose_rates(config: OptimizerConfig, batch_normalized: bool, pretrained: bool, block_count: int) -> Rates:
    """Return the configured rates, chosen where they are null.

    Args:
        config: What is asked for.
        batch_normalized: Whether most norms of the network are BatchNorm.
        pretrained: Whether its weights are not random.
        block_count: Number of blocks of the encoder.
    """
    lr = _LR[batch_normalized] if config.lr is None else config.lr
    layer_decay = config.layer_decay
    if layer_decay is None:
        layer_decay = _layer_decay(batch_normalized, block_count) if pretrained and block_count > 1 else 1.0
    return Rates(lr, _WEIGHT_DECAY[config.name] if config.weight_decay is None else config.weight_decay, layer_decay)


def _layer_decay(batch_normalized: bool, block_count: int) -> float:
    # some networks number their blocks by stage, others one by one: 0.75 for each of 50 would stop the first ones
    return max(_LAYER_DECAY[batch_normalized], math.pow(_LOWEST_SCALE, 1 / max(block_count - 1, 1)))


def make_optimizer(
    config: OptimizerConfig,
    rates: Rates,
    blocks: Sequence[Sequence[nn.Parameter]],
    decayed: Set[nn.Parameter],
    fused: bool = True,
) -> optim.Optimizer:
    """Build the optimizer over the parameters that learn.

    Args:
        config: What is asked for.
        rates: The configured rates, chosen where they are null.
        blocks: The network's parameters by block, from the input up; the head's come last.
        decayed: Those that the weight decay is for.
        fused: Update all parameters in one kernel, where the device has it. Lightning refuses to clip the gradients
            of such an optimizer under mixed precision.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for scale, parameters in zip(_scales(config, rates, len(blocks)), blocks, strict=True):
        for parameter in parameters:
            if parameter.requires_grad:
                decay = rates.weight_decay if parameter in decayed else 0.0
                groups.setdefault((scale, decay), []).append(parameter)
    options: dict[str, Any] = {
        key: value for key, value in asdict(config).items() if key not in _OURS and value is not None
    }
    devices = {parameter.device.type for parameters in groups.values() for parameter in parameters}
    optimizer = _CLASSES[config.name](
        [
            {"params": parameters, "lr": rates.lr * scale, LR_SCALE: scale, "weight_decay": decay}
            for (scale, decay), parameters in groups.items()
        ],
        lr=rates.lr,
        **options,
        fused=(fused and devices <= _FUSED_ON) or None,
    )
    optimizer.register_load_state_dict_pre_hook(_keep_kernel)
    return optimizer


def _keep_kernel(optimizer: optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Update with this run's kernel; with that of the checkpoint, torch 2.14 breaks off under ``16-mixed``."""
    kernel = {"fused": optimizer.defaults["fused"]}
    return state | {"param_groups": [group | kernel for group in state["param_groups"]]}


def _scales(config: OptimizerConfig, rates: Rates, count: int) -> list[float]:
    """Return the learning rate of each block over ``lr``; the last is the head."""
    encoder = [rates.layer_decay ** (count - 2 - number) for number in range(count - 1)]
    return [*encoder, config.head_multiplier]
