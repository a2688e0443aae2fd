"""Any Hugging Face classifier as encoder (images to features) and head (features to logits)."""

import logging
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from imgcls.errors import ConfigError
from imgcls.models.architecture import Architecture, Size, blocks, call, examine, interpolation_origin
from imgcls.models.partial_freeze.find_split import extend, find_split
from imgcls.models.partial_freeze.split_network import SplitNetwork

log = logging.getLogger(__name__)

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_LANES = 16  # float32 values of an AVX-512 register


class Backbone(nn.Module):
    """An encoder and its classification head.

    The heads are replaced by placeholders, so that the network itself returns the features.

    Args:
        network: The classifier.
        size: Height and width of its input in pixels.

    Raises:
        ConfigError: If the network has no separate head, does not accept images of that size, or has several heads
            that it does not average.
    """

    def __init__(self, network: PreTrainedModel, size: Size) -> None:
        super().__init__()
        self.architecture: Architecture = examine(network, size)
        self._origin = interpolation_origin(network)
        self.heads = nn.ModuleList(network.get_submodule(name) for name in self.architecture.heads)
        self._widths = [head.get_parameter("weight").shape[1] for head in self.heads]
        for number, name in enumerate(self.architecture.heads):
            network.set_submodule(name, _HeadPlaceholder(number, self._widths))
        if len(self.heads) > 1 and not _averages(network, torch.zeros(1, 3, *size), self._origin):
            raise ConfigError(f"model.init_args.model_name: {type(network).__name__} does not average its heads")
        self.network = network
        self.channels_last = _gains_from_channels_last(network)
        self.batch_normalized = _is_batch_normalized(network)
        self.frozen = 0  # layers
        self._split: SplitNetwork | None = None
        self._no_split = False  # for the frozen layers, or the size of the images
        self._in_eval_mode: list[nn.Module] = []
        for name in self.architecture.unused:
            self._parameter(name).requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """Return the input of the heads, features ``(B, ...)``, for normalised images ``(B, 3, H, W)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return call(self.network, self._in_memory_format(images), self._origin)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32; the mean of several heads."""
        parts = torch.split(features, self._widths, dim=-1) if len(self.heads) > 1 else [features]
        logits = [_apply(head, part).float() for head, part in zip(self.heads, parts, strict=True)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)``."""
        return self.classify(self.encode(images))

    @property
    def width(self) -> int:
        """Number of features per image that the heads receive."""
        return sum(self._widths)

    def fused_norms(self) -> set[str]:
        """Return the subclasses of BatchNorm in the network, of which SyncBatchNorm would only keep the norm."""
        norms = {type(module) for module in self.modules() if isinstance(module, _BATCH_NORMS)}
        return {kind.__name__ for kind in norms.difference(_BATCH_NORMS)}

    def freeze(self, fraction: bool | float) -> None:
        """Freeze the first layers of the encoder, including BatchNorm statistics and dropout, and train the others.

        Args:
            fraction: Fraction of the weight layers, 0 to 1, in the order of execution; True is 1, False is 0.
        """
        layers = self.architecture.layers
        self.frozen = round(float(fraction) * len(layers))
        for number, names in enumerate(layers):
            for name in names:
                self._parameter(name).requires_grad_(number >= self.frozen)
        self._in_eval_mode = list(self._frozen_modules())
        self._split, self._no_split = None, False
        self.train(self.training)

    @property
    def is_frozen(self) -> bool:
        """Whether the whole encoder is frozen."""
        return self.frozen == len(self.architecture.layers)

    def blocks(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each block, from the input up; the heads' come last."""
        encoder = [[self._parameter(name) for name in names] for names in blocks(self.architecture.layers)]
        return [*encoder, list(self.heads.parameters())]

    def kernels(self) -> set[nn.Parameter]:
        """Return weight matrices and kernels, without norms, biases, tokens and position embeddings."""
        return {
            parameter
            for module in self.modules()
            if not isinstance(module, nn.Embedding)  # position embeddings
            for name, parameter in module.named_parameters(recurse=False)
            # norms may have a weight (1, 1, 1, channels); attention has in_proj_weight, LSTM weight_ih_l0
            if "weight" in name and sum(side > 1 for side in parameter.shape) > 1
        }

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen modules stay in evaluation mode, which keeps their statistics."""
        super().train(mode)
        for module in self._in_eval_mode:
            module.eval()
        return self

    # -- cached features of the frozen part

    def frozen_until(self, size: Size) -> str | None:
        """Return the name of the last frozen module whose output alone feeds the rest; None (logged) if there is none.

        It may depend on the height and width of the images in pixels.
        """
        if self.is_frozen:
            return "the whole encoder"
        if not self._no_split and not self._find_split(size):
            self._no_split = True
            reason = "feature cache off: no module before %s, which is trained, has an output that alone feeds the rest"
            log.info(reason, self.architecture.owners[self.frozen])
        self.train(self.training)
        return self._split.split_point.name if self._split and not self._no_split else None

    def _find_split(self, size: Size) -> bool:
        if self._split is None:
            self._split = find_split(self.network, self._origin, size, self.architecture.owners, self.frozen)
            return self._split is not None
        return self._split.knows(size) or extend(self._split, size)

    def encode_frozen_part(self, images: Tensor) -> Tensor:
        """Return the output of ``frozen_until``, called before, for normalised images ``(B, 3, H, W)``."""
        if self._split is None:
            return self.encode(images)
        return self._split.first_part(self._in_memory_format(images))

    def encode_rest(self, features: Tensor, size: Size) -> Tensor:
        """Return the encoder's features for the result of ``encode_frozen_part`` on images of a size."""
        return features if self._split is None else self._split.second_part(features, size)

    def _in_memory_format(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def _parameter(self, name: str) -> nn.Parameter:
        parameter: nn.Parameter = self.network.get_parameter(name)
        return parameter

    def _frozen_modules(self) -> Iterator[nn.Module]:
        """Yield modules with only frozen parameters, and those without parameters before the first trainable layer."""
        passed = self._called_before_training()
        for name, module in self.network.named_modules():
            parameters = list(module.parameters())
            if not any(parameter.requires_grad for parameter in parameters) and (parameters or name in passed):
                yield module

    def _called_before_training(self) -> set[str]:
        """Return the names of modules that are called before the first trainable layer and never after it."""
        calls, owners = self.architecture.calls, self.architecture.owners
        start = calls.index(owners[self.frozen]) if self.frozen < len(owners) else len(calls)
        return set(calls[:start]) - set(calls[start:])

    def describe_frozen(self) -> str:
        """Return a line with the number of frozen layers and the first trainable module."""
        parameters = list(self.network.parameters())
        frozen = sum(each.numel() for each in parameters if not each.requires_grad) / 1e6
        total = sum(each.numel() for each in parameters) / 1e6
        rest = "only the head" if self.is_frozen else f"from {self.architecture.owners[self.frozen]}"
        count = f"{self.frozen} of {len(self.architecture.layers)} layers frozen"
        return f"{count}, {frozen:.1f} of {total:.1f} M parameters; trains {rest}"


class _HeadPlaceholder(nn.Module):
    """Replaces a head so that the network returns the features of all heads, concatenated.

    A network with several heads (deit, levit, swiftformer: one is distilled from a teacher) returns the mean of their
    logits. Each placeholder writes its features, times the number of heads, into its own slice of a zero vector, so
    that the network's mean concatenates them.
    """

    def __init__(self, number: int, widths: list[int]) -> None:
        super().__init__()
        self.count = len(widths)
        self.padding = (sum(widths[:number]), sum(widths[number + 1 :]))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features in their slice of the vector."""
        return functional.pad(features * self.count, self.padding) if self.count > 1 else features


@torch.no_grad()
def _averages(network: PreTrainedModel, image: Tensor, origin: Size | None) -> bool:
    """Whether a network returns the mean of its heads; volo and efficientvim do not."""
    heads = [module for module in network.modules() if isinstance(module, _HeadPlaceholder)]
    outputs = torch.split(len(heads) * torch.eye(len(heads), device=network.device), 1)
    hooks = [head.register_forward_hook(lambda *_, row=row: row) for head, row in zip(heads, outputs, strict=True)]
    training = network.training
    logits = call(network.eval(), image.to(network.device), origin)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return logits.shape == (1, len(heads)) and torch.allclose(logits, torch.ones_like(logits))


def _apply(head: nn.Module, features: Tensor) -> Tensor:
    """Return logits, always computed in float32, since bfloat16 logits above 8 are multiples of 1/16."""
    device = features.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return _logits(head, features)
    with torch.autocast(device, enabled=False):
        return _logits(head, features.float())


def _logits(head: nn.Module, features: Tensor) -> Tensor:
    if isinstance(head, nn.Conv2d) and features.ndim == 2:  # of timm, which flattens after the head
        return head(features[..., None, None]).flatten(1)  # type: ignore[no-any-return]
    return head(features)  # type: ignore[no-any-return]


def _gains_from_channels_last(network: nn.Module) -> bool:
    """Whether most weights are convolutions, which are about twice as fast in channels-last memory format."""
    if torch.backends.mps.is_available():  # BatchNorm has wrong gradients: github.com/pytorch/pytorch/issues/175189
        return False
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if any(map(_breaks_in_channels_last, convolutions)):
        return False
    kernels = sum(convolution.weight.numel() for convolution in convolutions)
    return kernels > 0.5 * sum(parameter.numel() for parameter in network.parameters())


def _breaks_in_channels_last(convolution: nn.Conv2d) -> bool:
    """Whether the backward pass of oneDNN 3.12 (torch 2.14) writes out of bounds, which crashes the process."""
    return convolution.kernel_size == (1, 1) and convolution.stride != (1, 1) and convolution.in_channels < _LANES


def _is_batch_normalized(network: nn.Module) -> bool:
    """Whether most norms are BatchNorm."""
    norms = [module for module in network.modules() if isinstance(module, (*_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm))]
    return sum(isinstance(norm, _BATCH_NORMS) for norm in norms) > len(norms) / 2
