"""Find the classification head, the layers in execution order and unused parameters of any network.

By a dry run on the meta device, which propagates shapes without computing.
"""

import copy
import inspect
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # documented by torch, without a public path
from transformers import PreTrainedConfig, PreTrainedModel

from imgcls.errors import ConfigError, first_line

Size = tuple[int, int]


@dataclass(frozen=True)
class Architecture:
    """Parts of a network, by module and parameter name.

    Args:
        heads: Modules with a parameter whose shape depends on the number of classes.
        layers: The parameter names of each weight layer of the encoder, in the order of execution.
        owners: The module called for each weight layer.
        calls: The modules in the order of their calls, with repetitions.
        unused: Parameters that do not affect the logits and get no gradient.
    """

    heads: list[str]
    layers: list[list[str]]
    owners: list[str]
    calls: list[str]
    unused: list[str]


@torch.inference_mode(False)  # the dry run needs gradients
def examine(network: PreTrainedModel, size: Size) -> Architecture:
    """Find the parts of an image classifier, by an input of a height and width in pixels.

    A weight layer is a module with parameters of its own; one that is never called belongs to its nearest caller.

    Raises:
        ConfigError: If it has no separate head, or does not accept images of that size.
    """
    config = copy.deepcopy(network.config)
    config.num_labels += 1
    with torch.device("meta"):
        twin = type(network)(config).eval()
    heads = _heads(network, twin)
    calls = _execution_order(twin, size)
    unused = [name for name, parameter in twin.named_parameters() if parameter.grad is None]
    layers: dict[str, list[str]] = {name: [] for name in calls}
    for name, _ in twin.named_parameters():
        owner = name.rpartition(".")[0]
        if owner in heads or name in unused:
            continue
        while owner not in layers:
            owner = owner.rpartition(".")[0]
        layers[owner].append(name)
    layers = {owner: names for owner, names in layers.items() if names}
    return Architecture(heads, list(layers.values()), list(layers), calls, unused)


def blocks(layers: list[list[str]]) -> list[list[str]]:
    """Return the parameter names of each encoder block, from the input up.

    A block is the outermost numbered module (``encoder.layer.3``, ``stages.2``). Modules without a number belong to the
    block executed before them, or form the first block. Numbered single layers (``stem.0``) are blocks only if the
    network numbers nothing else.

    Args:
        layers: As in ``Architecture``.
    """
    numbers = [match[1] if (match := re.match(r"(.+?\.\d+)\.", names[0])) else "" for names in layers]
    owners = [names[0].rpartition(".")[0] for names in layers]
    several = {number for number, owner in zip(numbers, owners, strict=True) if number != owner}
    found: dict[str, list[str]] = {}
    current = ""
    for number, names in zip(numbers, layers, strict=True):
        if number and (number in several or several <= {""}):
            current = number
        found.setdefault(current, []).extend(names)
    return list(found.values())


def _heads(network: nn.Module, twin: nn.Module) -> list[str]:
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    changed = {name.rpartition(".")[0]: None for name, value in twin.named_parameters() if value.shape != shapes[name]}
    if not changed or "" in changed:
        raise ConfigError(f"model.init_args.model_name: {type(network).__name__} has no separate classification head")
    return list(changed)


def _execution_order(twin: nn.Module, size: Size) -> list[str]:
    calls: list[str] = []
    for name, module in twin.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    if reason := refuses(twin, size):
        kind, (height, width) = type(twin).__name__, size
        raise ConfigError(
            f"model.init_args.model_name: {kind} does not accept images of {height} x {width} pixels: {reason}"
        )
    return calls


@torch.inference_mode(False)  # the dry run needs gradients
def refuses(twin: PreTrainedModel, size: Size) -> str:
    """Return why a network on the meta device does not accept images of a size; empty if it does."""
    try:
        _backpropagate(twin, torch.empty(2, 3, *size, device="meta"))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        return first_line(error)
    return ""


@torch.enable_grad()
def _backpropagate(twin: nn.Module, images: Tensor) -> None:
    origin = interpolation_origin(twin)
    try:
        torch.autograd.backward(call(twin, images, origin).sum())
    except RuntimeError as error:
        if "meta tensors" not in str(error):
            raise
        # perceiver reads values of its mask, unless it detects tracing, as with fake tensors, which are slower
        with FakeTensorMode(allow_non_fake_inputs=True):
            torch.autograd.backward(call(twin, torch.empty_like(images), origin).sum())


def call(network: nn.Module, images: Tensor, origin: Size | None) -> Tensor:
    """Return the logits of a transformers network for normalised images ``(B, 3, H, W)``.

    Without its heads, it returns what they would get. ``origin`` is its ``interpolation_origin``.
    """
    output = network(pixel_values=images, **_options(network, (images.shape[-2], images.shape[-1]), origin))
    logits: Tensor | None = getattr(output, "logits", None)
    return output[0] if logits is None else logits  # pp_lcnet has another name for them


def _options(network: nn.Module, size: Size, origin: Size | None) -> dict[str, bool]:
    """Return the arguments that a network's forward pass needs for images of a size."""
    if origin is None or size == origin:
        return {}
    options = {"interpolate_pos_encoding": True}
    if network.config.model_type == "swin" and min(size) < min(origin):  # type: ignore[union-attr]
        # transformers 5.24 shrinks the window to a smaller feature map, but not its table of relative positions
        options["always_partition"] = True
    return options


def interpolation_origin(network: nn.Module) -> Size | None:
    """Return height and width from which position embeddings are interpolated; None if there is no such option."""
    # clip passes the option to a submodule
    takes = any("interpolate_pos_encoding" in inspect.signature(part.forward).parameters for part in network.modules())
    return own_size(network.config) if takes else None


def own_size(config: PreTrainedConfig) -> Size | None:
    """Return the height and width of images in pixels in a config; None if it has none."""
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    return (size, size) if isinstance(size, int) else size and (size[0], size[1])
