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

_USUAL = (224, 224)
_STEP = 32  # pixels; most networks accept multiples of it
_TRIED = 3  # multiples below and above the size that was refused
_SHOWN = 3  # accepted sizes in the message


def config_for_size(config: PreTrainedConfig, size: Size, source: str) -> PreTrainedConfig:
    """Return the config of a network for images of a size.

    Args:
        config: The network's config.
        size: Height and width in pixels.
        source: Where the network comes from, for the message.

    Raises:
        ConfigError: If it does not accept that size; names those that it accepts.
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
    network = _on_meta(config)
    for size in dict.fromkeys(sizes):
        if len(found) < _SHOWN and not refuses(network, size):
            found.append(size)
    return [str(height) if height == width else f"[{height}, {width}]" for height, width in sorted(found)]


def _nearby(side: int) -> Iterator[Size]:
    """Yield square sizes that are multiples of 32, the nearest first."""
    middle = max(round(side / _STEP), 1)
    for distance in range(_TRIED + 1):
        for factor in (middle - distance, middle + distance):
            if factor > 0:
                yield factor * _STEP, factor * _STEP


def _find(config: PreTrainedConfig, size: Size) -> tuple[PreTrainedConfig | None, str]:
    """Return the config whose network accepts images of a size; else None and the reason why it does not."""
    shapes, reason = None, ""
    for arguments in _arguments(config, size):
        changed = copy.deepcopy(config)
        if arguments:
            changed.model_args = (config.model_args or {}) | arguments
        try:
            network = _on_meta(changed)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # most take no such argument
            reason = reason or first_line(error)
            continue
        shapes = shapes or _shapes(network)
        refusal = refuses(network, size)
        if not refusal and _shapes(network) == shapes:
            return changed, ""
        reason = reason or refusal
    return None, reason


def _arguments(config: PreTrainedConfig, size: Size) -> list[dict[str, Any]]:
    """Return the arguments of ``timm.create_model`` to try; none for transformers' own networks."""
    if config.model_type != "timm_wrapper":
        return [{}]
    return [{}, {"dynamic_img_size": True}, {"strict_img_size": False}, {"img_size": list(size)}]


def _on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        network: PreTrainedModel = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    return network.eval()


def _shapes(network: PreTrainedModel) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}
