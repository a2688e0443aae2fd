"""Any Hugging Face classifier, cut in two: images to features, features to logits."""

import logging
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from imgcls.errors import ConfigError
from imgcls.models.architecture import Anatomy, Size, blocks, call, examine, interpolation_origin
from imgcls.models.partial_freeze.find_split import extend, find_cut
from imgcls.models.partial_freeze.split_network import Cut

log = logging.getLogger(__name__)

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_LANES = 16  # float32 values of an AVX-512 register


class Backbone(nn.Module):
    """An encoder and its classification head.

    The heads are taken out of the network, so that the network itself returns the features.

    Args:
        network: The classifier.
        size: Height and width of its input in pixels.

    Raises:
        ConfigError: If the network has no head of its own, takes no images of that size, or has heads that it does not
            average.
    """

    def __init__(self, network: PreTrainedModel, size: Size) -> None:
        super().__init__()
        self.anatomy: Anatomy = examine(network, size)
        self._origin = interpolation_origin(network)
        self.heads = nn.ModuleList(network.get_submodule(name) for name in self.anatomy.heads)
        self._widths = [head.get_parameter("weight").shape[1] for head in self.heads]
        for number, name in enumerate(self.anatomy.heads):
            network.set_submodule(name, _Slot(number, self._widths))
        if len(self.heads) > 1 and not _averages(network, torch.zeros(1, 3, *size), self._origin):
            raise ConfigError(f"model.init_args.model_name: {type(network).__name__} does not average its heads")
        self.network = network
        self.channels_last = _gains_from_channels_last(network)
        self.batch_normalized = _is_batch_normalized(network)
        self.frozen = 0  # layers
        self._cut: Cut | None = None
        self._uncut = ""  # why there is none
        self._still: list[nn.Module] = []
        for name in self.anatomy.unused:
            self._parameter(name).requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` that the heads take, of normalised images ``(B, 3, H, W)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return call(self.network, self._laid_out(images), self._origin)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32; the mean where a network has several heads."""
        parts = torch.split(features, self._widths, dim=-1) if len(self.heads) > 1 else [features]
        logits = [_apply(head, part).float() for head, part in zip(self.heads, parts, strict=True)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)``."""
        return self.classify(self.encode(images))

    def fused_norms(self) -> set[str]:
        """Return the classes of layers that are BatchNorm and more; torch's SyncBatchNorm would keep the norm alone."""
        norms = {type(module) for module in self.modules() if isinstance(module, _BATCH_NORMS)}
        return {kind.__name__ for kind in norms.difference(_BATCH_NORMS)}

    def freeze(self, share: bool | float) -> None:
        """Freeze the first layers of the encoder, BatchNorm statistics and dropout included, and let the others learn.

        Args:
            share: True for the whole encoder, False for nothing, or the share 0..1 of its weight layers, in the order
                of execution.
        """
        layers = self.anatomy.layers
        self.frozen = round(float(share) * len(layers))
        for number, names in enumerate(layers):
            for name in names:
                self._parameter(name).requires_grad_(number >= self.frozen)
        self._still = list(self._still_modules())
        self._cut, self._uncut = None, ""
        self.train(self.training)

    @property
    def is_frozen(self) -> bool:
        """Whether the whole encoder is frozen."""
        return self.frozen == len(self.anatomy.layers)

    def blocks(self) -> list[list[nn.Parameter]]:
        """Return all parameters by block, from the input up; the heads' come last."""
        encoder = [[self._parameter(name) for name in names] for names in blocks(self.anatomy.layers)]
        return [*encoder, list(self.heads.parameters())]

    def kernels(self) -> set[nn.Parameter]:
        """Return the matrices and kernels of layers: no norm, bias, token or table of positions."""
        return {
            parameter
            for module in self.modules()
            if not isinstance(module, nn.Embedding)  # positions, in networks of images
            for name, parameter in module.named_parameters(recurse=False)
            # a norm's weight may be (1, 1, 1, channels); attention has an in_proj_weight, an LSTM a weight_ih_l0
            if "weight" in name and sum(side > 1 for side in parameter.shape) > 1
        }

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen modules stay in evaluation mode, so that their statistics do not drift."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    # -- features that are computed once

    def frozen_until(self, size: Size) -> str | None:
        """Where the frozen part ends that gives a single tensor; None if that is nowhere, which is said.

        Args:
            size: Height and width in pixels of the images.
        """
        if self.is_frozen:
            return "the whole encoder"
        if not self._uncut and not self._is_cut(size):
            self._uncut = f"no single tensor passes before {self.anatomy.owners[self.frozen]}, where training begins"
            log.info("features are computed anew in each epoch: %s", self._uncut)
        self.train(self.training)
        return self._cut.place.name if self._cut and not self._uncut else None

    def _is_cut(self, size: Size) -> bool:
        if self._cut is None:
            self._cut = find_cut(self.network, self._origin, size, self.anatomy.owners, self.frozen)
            return self._cut is not None
        return self._cut.knows(size) or extend(self._cut, size)

    def begin(self, images: Tensor) -> Tensor:
        """Return what the frozen part gives for normalised images ``(B, 3, H, W)``; after ``frozen_until``."""
        if self._cut is None:
            return self.encode(images)
        return self._cut.begin(self._laid_out(images))

    def go_on(self, features: Tensor, size: Size) -> Tensor:
        """Return the encoder's features of what ``begin`` returned for images of a size."""
        return features if self._cut is None else self._cut.go_on(features, size)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def _parameter(self, name: str) -> nn.Parameter:
        parameter: nn.Parameter = self.network.get_parameter(name)
        return parameter

    def _still_modules(self) -> Iterator[nn.Module]:
        """The frozen modules: all their parameters are, or they have none (dropout) and come before what learns."""
        passed = self._passed()
        for name, module in self.network.named_modules():
            parameters = list(module.parameters())
            if not any(parameter.requires_grad for parameter in parameters) and (parameters or name in passed):
                yield module

    def _passed(self) -> set[str]:
        """Names of the modules that are called before the first layer that learns, and never after."""
        calls, owners = self.anatomy.calls, self.anatomy.owners
        start = calls.index(owners[self.frozen]) if self.frozen < len(owners) else len(calls)
        return set(calls[:start]) - set(calls[start:])

    def describe_frozen(self) -> str:
        """Return in one line how much is frozen, and where training begins."""
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.network.parameters()]
        frozen = sum(size for size, learns in sizes if not learns) / 1e6
        total = sum(size for size, _ in sizes) / 1e6
        rest = "the head alone" if self.is_frozen else f"from {self.anatomy.owners[self.frozen]}"
        count = f"{self.frozen} of {len(self.anatomy.layers)} layers frozen"
        return f"{count}, {frozen:.1f} of {total:.1f} M parameters; trains {rest}"


class _Slot(nn.Module):
    """Takes a head's place, and lays the head's features beside those of the others.

    A network with several heads (deit, levit, swiftformer: one learnt from a teacher) returns the mean of their logits,
    though each head has features of its own. Here they fill a part of the vector that is zero for the other heads,
    times the number of heads, so that the network's mean is all of them, side by side.
    """

    def __init__(self, number: int, widths: list[int]) -> None:
        super().__init__()
        self.count = len(widths)
        self.padding = (sum(widths[:number]), sum(widths[number + 1 :]))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features in their part of the vector."""
        return functional.pad(features * self.count, self.padding) if self.count > 1 else features


@torch.no_grad()
def _averages(network: PreTrainedModel, image: Tensor, origin: Size | None) -> bool:
    """Whether a network with several heads returns the mean of what they say; volo and efficientvim do otherwise."""
    slots = [module for module in network.modules() if isinstance(module, _Slot)]
    said = len(slots) * torch.eye(len(slots), device=network.device)
    hooks = [
        slot.register_forward_hook(lambda *_, row=row: row)
        for slot, row in zip(slots, torch.split(said, 1), strict=True)
    ]
    training = network.training
    logits = call(network.eval(), image.to(network.device), origin)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return logits.shape == (1, len(slots)) and torch.allclose(logits, torch.ones_like(logits))


def _apply(head: nn.Module, features: Tensor) -> Tensor:
    """Return logits, in float32 under mixed precision: those of bfloat16 are 1/16 apart from 8 on, and often equal."""
    device = features.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return _logits(head, features)
    with torch.autocast(device, enabled=False):
        return _logits(head, features.float())


def _logits(head: nn.Module, features: Tensor) -> Tensor:
    if isinstance(head, nn.Conv2d) and features.ndim == 2:  # of timm, behind which the network flattens
        return head(features[..., None, None]).flatten(1)  # type: ignore[no-any-return]
    return head(features)  # type: ignore[no-any-return]


def _gains_from_channels_last(network: nn.Module) -> bool:
    """Whether most weights are convolutions; channels-last memory makes those about twice as fast."""
    if torch.backends.mps.is_available():  # there BatchNorm's gradients are wrong with it (torch issue 175189)
        return False
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if any(map(_breaks_in_channels_last, convolutions)):
        return False
    kernels = sum(convolution.weight.numel() for convolution in convolutions)
    return kernels > 0.5 * sum(parameter.numel() for parameter in network.parameters())


def _breaks_in_channels_last(convolution: nn.Conv2d) -> bool:
    """Whether oneDNN 3.12 (torch 2.14) writes behind its memory in the backward pass, which ends the process."""
    return convolution.kernel_size == (1, 1) and convolution.stride != (1, 1) and convolution.in_channels < _LANES


def _is_batch_normalized(network: nn.Module) -> bool:
    """Whether most norms are BatchNorm."""
    norms = [module for module in network.modules() if isinstance(module, (*_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm))]
    return sum(isinstance(norm, _BATCH_NORMS) for norm in norms) > len(norms) / 2
