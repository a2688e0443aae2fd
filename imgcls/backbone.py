"""Any Hugging Face classifier, cut in two: images to features, features to logits."""

import logging
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from imgcls.anatomy import Anatomy, Size, blocks, call, examine, interpolation_origin
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)


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
        self.convolutional = _is_convolutional(network)
        self._frozen: list[nn.Module] = []
        for name in self.anatomy.unused:
            self._parameter(name).requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` that the heads take, of normalised images ``(B, 3, H, W)``."""
        if self.convolutional:
            images = images.contiguous(memory_format=torch.channels_last)
        return call(self.network, images, self._origin)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32; the mean where a network has several heads."""
        parts = torch.split(features, self._widths, dim=-1) if len(self.heads) > 1 else [features]
        logits = [_apply(head, part).float() for head, part in zip(self.heads, parts, strict=True)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)``."""
        return self.classify(self.encode(images))

    def freeze(self, share: bool | float) -> None:
        """Freeze the first layers of the encoder, BatchNorm statistics and dropout included.

        Args:
            share: True for the whole encoder, False for nothing, or the share 0..1 of its weight layers, in the order
                of execution.
        """
        count = round(float(share) * len(self.anatomy.layers))
        names = [name for layer in self.anatomy.layers[:count] for name in layer]
        for name in names:
            self._parameter(name).requires_grad_(False)
        self._frozen = list(self._frozen_modules())
        self.train(self.training)
        if count:
            log.info("frozen: %s", self._describe(count))

    def blocks(self) -> list[list[nn.Parameter]]:
        """Return all parameters by block, from the input up; the heads' come last."""
        encoder = [[self._parameter(name) for name in names] for names in blocks(self.anatomy.layers)]
        return [*encoder, list(self.heads.parameters())]

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen modules stay in evaluation mode, so that their statistics do not drift."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _parameter(self, name: str) -> nn.Parameter:
        parameter: nn.Parameter = self.network.get_parameter(name)
        return parameter

    def _frozen_modules(self) -> Iterator[nn.Module]:
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                yield module

    def _describe(self, count: int) -> str:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.network.parameters()]
        frozen = sum(size for size, learns in sizes if not learns) / 1e6
        total = sum(size for size, _ in sizes) / 1e6
        layers = self.anatomy.layers
        rest = f"from {layers[count][0].rpartition('.')[0]}" if count < len(layers) else "the head alone"
        return f"{count} of {len(layers)} encoder layers, {frozen:.1f} of {total:.1f} M parameters; trains {rest}"


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
    """Return logits; some of timm's heads are convolutions, behind which the network flattens."""
    if isinstance(head, nn.Conv2d) and features.ndim == 2:
        return head(features[..., None, None]).flatten(1)  # type: ignore[no-any-return]
    return head(features)  # type: ignore[no-any-return]


def _is_convolutional(network: nn.Module) -> bool:
    """Whether most weights are convolutions; channels-last memory makes those about twice as fast."""
    kernels = sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d))
    return kernels > 0.5 * sum(parameter.numel() for parameter in network.parameters())
