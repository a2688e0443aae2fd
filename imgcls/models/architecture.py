"""The parts of an unknown network, found on the meta device, where shapes flow and nothing is computed."""

import copy
import inspect
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig, PreTrainedModel

from imgcls.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True)
class Anatomy:
    """What a network is made of, by module and parameter name.

    Args:
        heads: Modules that hold a parameter whose shape depends on the number of classes.
        layers: For each weight layer of the encoder, in the order of execution, the names of its parameters.
        owners: For each weight layer, the module that is called for it.
        calls: The modules in the order in which they are called, one that is called twice standing there twice.
        unused: Parameters that take no part in the classification, and never get a gradient.
    """

    heads: list[str]
    layers: list[list[str]]
    owners: list[str]
    calls: list[str]
    unused: list[str]


@torch.inference_mode(False)  # tensors that are made within it have no gradient
def examine(network: PreTrainedModel, size: Size) -> Anatomy:
    """Find heads, layers and unused parameters of an image classifier.

    A weight layer is a module that owns parameters; one that is never called itself counts with its nearest caller.

    Args:
        network: The classifier, with ``n`` classes.
        size: Height and width of its input in pixels.

    Raises:
        ConfigError: If it has no head of its own, or takes no images of that size.
    """
    twin = _twin(network)
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
    return Anatomy(heads, list(layers.values()), list(layers), calls, unused)


def blocks(layers: list[list[str]]) -> list[list[str]]:
    """Return the names of the encoder's parameters by block, from the input up.

    A block is what the network numbers first (``encoder.layer.3``, ``stages.2``); what has no number goes with the
    block that is executed before it, a stem with none makes a block of its own. Numbered layers (``stem.0``) are no
    blocks, but where the network numbers nothing else.

    Args:
        layers: For each weight layer, in the order of execution, the names of its parameters.
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


def _twin(network: PreTrainedModel) -> PreTrainedModel:
    config = copy.deepcopy(network.config)
    config.num_labels += 1
    with torch.device("meta"):
        return type(network)(config).eval()


def _heads(network: nn.Module, twin: nn.Module) -> list[str]:
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    changed = {name.rpartition(".")[0]: None for name, value in twin.named_parameters() if value.shape != shapes[name]}
    if not changed or "" in changed:
        raise ConfigError(f"model.init_args.model_name: {type(network).__name__} has no classification head of its own")
    return list(changed)


def _execution_order(twin: nn.Module, size: Size) -> list[str]:
    calls: list[str] = []
    for name, module in twin.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    try:
        _flow(twin, size)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        name, (height, width), (reason, *_) = type(twin).__name__, size, [*str(error).splitlines(), ""]
        raise ConfigError(
            f"model.init_args.model_name: {name} takes no images of {height} x {width} pixels: {reason}"
        ) from error
    return calls


def _flow(twin: nn.Module, size: Size) -> None:
    images = torch.empty(2, 3, *size, device="meta")
    origin = interpolation_origin(twin)
    try:
        _backpropagate(twin, images, origin)
    except RuntimeError as error:
        if "meta tensors" not in str(error):
            raise
        # perceiver asks for values of its mask, except where it is traced, as it then thinks; that takes longer
        with FakeTensorMode(allow_non_fake_inputs=True):
            _backpropagate(twin, torch.empty_like(images), origin)


@torch.enable_grad()
def _backpropagate(twin: nn.Module, images: Tensor, origin: Size | None) -> None:
    torch.autograd.backward(call(twin, images, origin).sum())


def call(network: nn.Module, images: Tensor, origin: Size | None) -> Tensor:
    """Return the logits of a transformers network.

    Args:
        network: The network, intact or without its head.
        images: Normalised images ``(B, 3, H, W)``.
        origin: Its ``interpolation_origin``.
    """
    options = {"interpolate_pos_encoding": True} if origin and tuple(images.shape[-2:]) != origin else {}
    output = network(pixel_values=images, **options)
    logits: Tensor | None = getattr(output, "logits", None)
    return output[0] if logits is None else logits  # pp_lcnet names them otherwise


def interpolation_origin(network: nn.Module) -> Size | None:
    """Height and width that position embeddings are interpolated from, None where they need no telling or cannot be."""
    # clip hands the option down to a part that knows it
    takes = any("interpolate_pos_encoding" in inspect.signature(part.forward).parameters for part in network.modules())
    return own_size(network.config) if takes else None


def own_size(config: PreTrainedConfig) -> Size | None:
    """Height and width in pixels of the images that a config states, None where it states none."""
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    return (size, size) if isinstance(size, int) else size and (size[0], size[1])
