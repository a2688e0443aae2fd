"""The network of a classifier as a classifier of transformers, with its own heads and the temperature in them."""

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from imgcls.errors import ConfigError
from imgcls.models.architecture import Size, call, interpolation_origin
from imgcls.models.classifier import ImageClassifier
from imgcls.models.huggingface.build import build

_OTHERS = "other formats can: --format onnx or --format torch"
_ROUNDING = 1e-4  # of logits


def own_network(model: ImageClassifier, size: Size) -> PreTrainedModel:
    """Return a copy of the network that returns logits divided by the temperature, float32, in evaluation mode.

    Args:
        model: The classifier.
        size: Height and width of its input in pixels, which the network takes without further arguments.

    Raises:
        ConfigError: If the temperature cannot be folded into the heads, or transformers takes that size with further
            arguments only.
    """
    backbone = model.built()
    network = copy.deepcopy(backbone.network).float()
    for name, head in zip(backbone.architecture.heads, backbone.heads, strict=True):
        network.set_submodule(name, _cooled(head, model.temperature.float()))
    network.to(memory_format=torch.contiguous_format)
    return _at_size(network.eval(), size)


def _cooled(head: nn.Module, temperature: Tensor) -> nn.Module:
    """Return a copy of a head whose logits are divided by the temperature, ``W/T`` and ``b/T``; of a class, its row."""
    head = copy.deepcopy(head).float()
    if (temperature == 1).all():
        return head
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        shown = " to ".join(f"{value:.4g}" for value in sorted({float(temperature.min()), float(temperature.max())}))
        raise ConfigError(
            f"--format hf: the temperature {shown} cannot be a part of the head {type(head).__name__}, which "
            f"is not linear; {_OTHERS}"
        )
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.div_(temperature.reshape(-1, *[1] * (parameter.ndim - 1)))
    return head


@torch.inference_mode()
def _at_size(network: PreTrainedModel, size: Size) -> PreTrainedModel:
    """Return a network made for images of a size, with position embeddings interpolated to it, if it has any."""
    origin = interpolation_origin(network)
    if origin is None or size == origin:
        return network
    config = copy.deepcopy(network.config)
    getattr(config, "vision_config", config).image_size = size[0] if size[0] == size[1] else list(size)
    refusal = f"--format hf: {config.model_type} does not take images of {size[0]} x {size[1]} pixels by its config"
    try:
        with torch.inference_mode(False):
            made = build(config).eval()
    except ConfigError as error:
        raise ConfigError(f"{refusal}; {_OTHERS} ({error})") from error
    state = network.state_dict()
    for name, value in made.state_dict().items():
        if state[name].shape != value.shape:
            state[name] = _interpolated(network, name, value.shape, size, f"{refusal}; {_OTHERS}")
    made.load_state_dict(state)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    before, after = call(network, images, origin), made(pixel_values=images).logits
    if not torch.allclose(before, after, atol=_ROUNDING):
        raise ConfigError(f"{refusal}: its outputs differ by {(before - after).abs().max():.2g}; {_OTHERS}")
    return made


def _interpolated(network: nn.Module, name: str, shape: torch.Size, size: Size, refusal: str) -> torch.Tensor:
    """Return position embeddings for images of a size, as the network interpolates them in its forward pass."""
    parts = name.split(".")
    owners = (network.get_submodule(".".join(parts[:end])) for end in range(len(parts) - 1, 0, -1))
    owner = next((each for each in owners if hasattr(each, "interpolate_pos_encoding")), None)
    if owner is None or "position" not in name:
        raise ConfigError(f"{refusal} ({name} depends on the size)")
    tokens = torch.empty(1, *shape[-2:])
    return owner.interpolate_pos_encoding(tokens, *size).reshape(shape)  # type: ignore[no-any-return, operator]
