"""Optimizers: which parameters are trained at which learning rate and weight decay."""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as section_dataclass
from torch import nn, optim

from imgcls.config.sections import check_owners, section
from imgcls.types import LR_SCALE

_KEY = "model.init_args.optimizer_config"
_CLASSES: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}
_OWNERS = {
    "momentum": {"sgd"},
    "nesterov": {"sgd"},
    "betas": {"adam", "adamw"},
    "eps": {"adam", "adamw"},
    "amsgrad": {"adam", "adamw"},
}
_OURS = {"name", "lr", "weight_decay", "layer_decay", "head_multiplier"}  # the others are torch's arguments
_FUSED_ON = {"cpu", "cuda"}
# defaults for networks with mostly BatchNorm (True), and for others
_LR = {True: 1e-3, False: 3e-4}
_LAYER_DECAY = {True: 0.9, False: 0.75}
_WEIGHT_DECAY = {"adamw": 0.05, "sgd": 1e-4, "adam": 0.0}
_LOWEST_SCALE = 0.1  # of the first block's learning rate over ``lr``, by the default layer_decay


@section_dataclass(frozen=True, config=section("optimizer_config", "model.init_args"))
class OptimizerConfig:
    """The optimizer and its parameters; null means torch's default except for the first three numbers.

    Args:
        name: The optimizer.
        lr: Peak learning rate of the head and of the encoder's last block; required for sgd. Default: 1e-3 for networks
            that mostly use BatchNorm (scale-invariant weights tolerate a high rate, van Laarhoven 2017), else 3e-4.
        weight_decay: Weight decay of weight matrices and kernels, not of norms, biases, tokens and position embeddings.
            Default: 0.05 for adamw, 1e-4 for sgd (He et al. 2016, ResNet), 0 for adam, which would rescale it.
        layer_decay: Learning rate of each encoder block relative to the next one, above 0 to 1; 1 trains all blocks at
            the same rate. Blocks are stages, or the layers of a transformer (layer-wise learning-rate decay, Clark et
            al. 2020, ELECTRA; Bao et al. 2022, BEiT). Default: 1 from random weights; for pretrained weights 0.9 with
            mostly BatchNorm, else 0.75, or more in deep networks, so that the first block has at least ``lr`` / 10.
        head_multiplier: Learning rate of the head relative to ``lr``.
        momentum: Momentum, only for sgd.
        nesterov: Nesterov momentum, only for sgd.
        betas: Decay rates of the two moments, only for adam and adamw.
        eps: Term added to the denominator, only for adam and adamw.
        amsgrad: AMSGrad variant, only for adam and adamw.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: Annotated[float | None, Field(gt=0)] = None
    weight_decay: Annotated[float | None, Field(ge=0)] = None
    layer_decay: Annotated[float | None, Field(gt=0, le=1)] = None
    head_multiplier: Annotated[float, Field(gt=0)] = 1.0
    momentum: Annotated[float | None, Field(ge=0)] = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    eps: Annotated[float | None, Field(gt=0)] = None
    amsgrad: bool | None = None

    def __post_init__(self) -> None:
        """Check the parameters against the named optimizer."""
        check_owners(vars(self), _KEY, _OWNERS)
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"{_KEY}.betas must be at least 0 and less than 1, got {self.betas}")
        if self.lr is None and self.name == "sgd":
            raise ValueError(f"{_KEY}.lr is required for 'sgd', for example 0.01")
        if self.nesterov and not self.momentum:
            raise ValueError(f"{_KEY}.nesterov: true requires {_KEY}.momentum")


@dataclass(frozen=True)
class Rates:
    """Learning rates and weight decay of a network.

    Args:
        lr: Learning rate of the encoder's last block and, times ``head_multiplier``, of the head.
        weight_decay: Weight decay.
        layer_decay: Learning rate of each block relative to the next one.
    """

    lr: float
    weight_decay: float
    layer_decay: float


def choose_rates(config: OptimizerConfig, batch_normalized: bool, pretrained: bool, block_count: int) -> Rates:
    """Return the configured rates, with defaults for those that are None.

    Args:
        config: The section ``optimizer_config``.
        batch_normalized: Whether most norms of the network are BatchNorm.
        pretrained: Whether its weights are pretrained.
        block_count: Number of encoder blocks.
    """
    lr = _LR[batch_normalized] if config.lr is None else config.lr
    weight_decay = _WEIGHT_DECAY[config.name] if config.weight_decay is None else config.weight_decay
    layer_decay = config.layer_decay
    if layer_decay is None and pretrained and block_count > 1:
        # blocks may be a few stages or many layers: 0.75 ** 50 would not train the first ones
        layer_decay = max(_LAYER_DECAY[batch_normalized], math.pow(_LOWEST_SCALE, 1 / (block_count - 1)))
    return Rates(lr, weight_decay, 1.0 if layer_decay is None else layer_decay)


def make_optimizer(
    config: OptimizerConfig,
    rates: Rates,
    blocks: Sequence[Sequence[nn.Parameter]],
    decayed: Set[nn.Parameter],
    fused: bool = True,
) -> optim.Optimizer:
    """Build the optimizer over the parameters that require a gradient.

    Args:
        config: The section ``optimizer_config``.
        rates: Its numbers, for this network.
        blocks: The network's parameters by block, from the input up; the head's come last.
        decayed: The parameters with weight decay.
        fused: Use torch's fused implementation if the device has one. Lightning does not clip the gradients of a fused
            optimizer under mixed precision.
    """
    count = len(blocks) - 1  # of the encoder
    scales = [*(rates.layer_decay ** (count - 1 - number) for number in range(count)), config.head_multiplier]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for scale, parameters in zip(scales, blocks, strict=True):
        for parameter in parameters:
            if parameter.requires_grad:
                decay = rates.weight_decay if parameter in decayed else 0.0
                groups.setdefault((scale, decay), []).append(parameter)
    options = {key: value for key, value in asdict(config).items() if key not in _OURS and value is not None}
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
    optimizer.register_load_state_dict_pre_hook(_keep_fused)
    return optimizer


def _keep_fused(optimizer: optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Keep this run's ``fused`` on resume; with the checkpoint's, torch 2.14 fails under ``16-mixed``."""
    fused = {"fused": optimizer.defaults["fused"]}
    return state | {"param_groups": [group | fused for group in state["param_groups"]]}
