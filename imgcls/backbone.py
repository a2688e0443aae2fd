"""Any Hugging Face classifier, cut in two: images to features, features to logits."""

import inspect
import logging
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from imgcls.anatomy import Anatomy, examine, first_output

log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """An encoder and its classification head.

    The head's modules are taken out of the network, so that the network itself returns the features.

    Args:
        network: The classifier.
        size: Height and width of its input in pixels.
    """

    def __init__(self, network: PreTrainedModel, size: tuple[int, int]) -> None:
        super().__init__()
        self.anatomy: Anatomy = examine(network, size)
        self.heads = nn.ModuleList()
        for name in self.anatomy.heads:
            self.heads.append(network.get_submodule(name))
            network.set_submodule(name, nn.Identity())
        self.network = network
        self.convolutional = _is_convolutional(network)
        self._frozen: list[nn.Module] = []
        self._own_size = _size_to_interpolate_from(network)
        for name in self.anatomy.unused:
            self._parameter(name).requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` that the head takes, of normalised images ``(B, 3, H, W)``."""
        if self.convolutional:
            images = images.contiguous(memory_format=torch.channels_last)
        options = {}
        if self._own_size and tuple(images.shape[-2:]) != self._own_size:
            options["interpolate_pos_encoding"] = True
        return first_output(self.network(pixel_values=images, **options))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32; the mean where a network has several heads."""
        logits = [head(features).float() for head in self.heads]
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

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen modules stay in evaluation mode, so that their statistics do not drift."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _parameter(self, name: str) -> nn.Parameter:
        return self.network.get_parameter(name)

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
        rest = f"; trains from {layers[count][0].rpartition('.')[0]}" if count < len(layers) else "; trains the head alone"
        return f"{count} of {len(layers)} encoder layers, {frozen:.1f} of {total:.1f} M parameters{rest}"


def _is_convolutional(network: nn.Module) -> bool:
    """Whether most weights are convolutions; channels-last memory makes those about twice as fast."""
    kernels = sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d))
    return kernels > 0.5 * sum(parameter.numel() for parameter in network.parameters())


def _size_to_interpolate_from(network: PreTrainedModel) -> tuple[int, int] | None:
    """Height and width of the position embeddings, None where they are not or need not be interpolated."""
    own = getattr(network.config, "image_size", None)
    if own is None or "interpolate_pos_encoding" not in inspect.signature(network.forward).parameters:
        return None
    return (own[0], own[1]) if isinstance(own, (list, tuple)) else (own, own)
