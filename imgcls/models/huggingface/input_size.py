"""Configure a network for images of another size than it was pretrained with.

Convolutions take any size, and transformers' networks interpolate their position embeddings in the forward pass. Those
of timm need an argument for it. All tensors keep the shapes of the pretrained weights, so that these and checkpoints
load as they are.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from imgcls.errors import ConfigError, first_line
from imgcls.models.architecture import Size, own_size, refuses
from imgcls.models.huggingface.hub_ids import KEY

_USUAL = (224, 224)
_STEPS = {32: 3, 14: 1}  # pixels: most networks accept multiples of these -> how many of them to try on each side
_SHOWN = 3  # accepted sizes in the message


def config_for_size(config: PreTrainedConfig, size: Size, source: str) -> PreTrainedConfig:
    """Return the config of a network for images of a height and width in pixels.

    Raises:
        ConfigError: If it does not accept that size; names the source of the network, and sizes that it accepts.
    """
    found, reason = _find(config, size)
    if found is not None:
        return found
    accepted = _accepted(config, [own_size(config) or _USUAL, _USUAL, *_nearby(max(size))])
    shown = f"; sizes that it accepts: {', '.join(accepted)}" if accepted else ""
    raise ConfigError(
        f"data.init_args.image_size: {source} ({config.model_type}) does not accept images of {size[0]} x {size[1]} "
        f"pixels{shown} ({reason})"
    )


def _accepted(config: PreTrainedConfig, sizes: Iterable[Size]) -> list[str]:
    """Return the first few sizes that a network accepts, as texts in ascending order."""
    found: list[Size] = []
    networks = [network for _, network in _variants(config, None)]
    for size in dict.fromkeys(sizes):
        if len(found) < _SHOWN and not all(refuses(network, size) for network in networks):
            found.append(size)
    return [str(height) if height == width else f"[{height}, {width}]" for height, width in sorted(found)]


def _nearby(side: int) -> Iterator[Size]:
    """Yield square sizes near to a side in pixels, the nearest of each step first."""
    for step, most in _STEPS.items():
        middle = max(round(side / step), 1)
        for factor in [middle, *(middle + sign * distance for distance in range(1, most + 1) for sign in (-1, 1))]:
            if factor > 0:
                yield factor * step, factor * step


def _find(config: PreTrainedConfig, size: Size) -> tuple[PreTrainedConfig | None, str]:
    """Return the config whose network accepts images of a size; else None and the reason why it does not."""
    shapes, reason = None, ""
    for changed, network in _variants(config, size):
        shapes = shapes or _shapes(network)
        refusal = refuses(network, size)
        if not refusal and _shapes(network) == shapes:
            return changed, ""
        reason = reason or refusal
    return None, reason or "its size is part of its weights"


def _variants(config: PreTrainedConfig, size: Size | None) -> Iterator[tuple[PreTrainedConfig, PreTrainedModel]]:
    """Yield a network on the meta device for each set of arguments that its architecture takes, with its config."""
    tried: list[dict[str, Any]] = [{}]  # arguments of timm.create_model; a size is the last resort
    if config.model_type == "timm_wrapper":
        tried += [{"dynamic_img_size": True}, {"strict_img_size": False}]
        tried += [] if size is None else [{"img_size": list(size)}]
    for arguments in tried:
        changed = copy.deepcopy(config)
        if arguments:
            changed.model_args = (config.model_args or {}) | arguments
        try:
            with torch.device("meta"):
                network = AutoModelForImageClassification.from_config(changed, dtype=torch.float32)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            if arguments:  # not of this architecture
                continue
            raise ConfigError(f"{KEY}: {config.model_type} cannot be built: {first_line(error)}") from error
        yield changed, network.eval()


def _shapes(network: PreTrainedModel) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}
