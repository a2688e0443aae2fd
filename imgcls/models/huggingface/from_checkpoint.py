"""Rebuild the network of a checkpoint, which may come from a stranger, without downloads or code named by it."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from imgcls.errors import ConfigError, first_line
from imgcls.models.architecture import Size
from imgcls.models.huggingface.build import build, check_timm, set_classes
from imgcls.models.huggingface.hub import OF_CODE, UNUSABLE
from imgcls.models.huggingface.input_size import config_for_size

_IGNORED = {  # fields of all configs that do not matter here or are set by us
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "transformers_version",
}
_LARGEST = 2**20  # sizes and numbers of layers
_MOST_ITEMS = 4096
_LONGEST_TEXT = 200
_NO_NAME = re.compile(r"[/\\:\0]|^\.")  # of paths and URLs, but not of layer types or activations
_WIDEST = 2**14  # features of a head
_BUFFERS = 2**24  # elements of buffers that are not saved, such as relative positions


def build_recorded(
    record: Mapping[str, Any],
    class_names: list[str],
    weights: Mapping[str, Tensor] | None = None,
    image_size: Size | None = None,
) -> PreTrainedModel:
    """Build the architecture recorded in a checkpoint.

    Args:
        record: The network's config as plain values.
        class_names: Names of the outputs.
        weights: Tensors of the checkpoint, which limit the size of the network; None: no limit.
        image_size: Height and width in pixels of other images than the recorded network takes; None if it is that size.

    Raises:
        ConfigError: If the record is invalid, too large, or would read or download files.
    """
    try:
        config = _config(record)
        config.architectures = record.get("architectures")
        set_classes(config, class_names)
        if weights is not None:
            _check_size(config, _limits(weights, len(class_names)))
        return build(config if image_size is None else config_for_size(config, image_size, "the checkpoint's network"))
    except ConfigError:
        raise
    except Exception as error:
        reason, several, _ = first_line(error).partition(" Should contain one of")  # followed by hundreds of names
        hint = "; a newer version of transformers may know it" if several else ""
        raise ConfigError(f"the checkpoint's network cannot be built: {reason}{hint}") from error


def _config(record: Mapping[str, Any]) -> PreTrainedConfig:
    """Build the config from the fields that its class declares; other values are ignored."""
    check_timm(record, "the checkpoint")
    model_type = str(record["model_type"])
    if model_type not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise ConfigError(
            f"the checkpoint's network cannot be built: {model_type!r:.80} is not an image classifier of transformers; "
            "a newer version may know it"
        )
    if (reason := UNUSABLE.get(model_type)) is not None:
        raise ConfigError(f"the checkpoint's network cannot be built: {model_type} {reason}")
    kind = CONFIG_MAPPING[model_type]
    return kind(**_declared(kind, record, "network"))


def _declared(kind: type[PreTrainedConfig], record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the checked values of the fields of a config class, and of its sub-configs."""
    values = {}
    for name in _names(kind, record) & record.keys() - _IGNORED:
        value, part = record[name], kind.sub_configs.get(name)
        if isinstance(value, Mapping) and part is not None and hasattr(part, "__dataclass_fields__"):
            values[name] = _declared(part, value, f"{where}.{name}")
        else:
            _check_value(value, f"{where}.{name}")
            values[name] = value
    return values


def _names(kind: type[PreTrainedConfig], record: Mapping[str, Any]) -> set[str]:
    """Return the fields of a config class and attributes derived from them, such as ``down_ops`` of levit."""
    # not __dataclass_fields__, which includes class variables such as attribute_map
    names, common = {field.name for field in fields(kind)}, PreTrainedConfig().to_dict().keys()
    made = kind().to_dict().keys() - common if record.keys() - names - common else set()
    return {name for name in names | made if not name.startswith("_") and not OF_CODE.search(name)}


def _check_value(value: Any, where: str) -> None:
    """Refuse values other than bounded numbers, names, and lists and dicts of them."""
    if isinstance(value, (Mapping, list, tuple)):
        if len(value) > _MOST_ITEMS:
            raise ConfigError(f"the checkpoint's {where} must have at most {_MOST_ITEMS} values, got {len(value)}")
        keys, items = (value.keys(), value.values()) if isinstance(value, Mapping) else ((), value)
        for item in (*keys, *items):
            _check_value(item, where)
    elif isinstance(value, str):
        if len(value) > _LONGEST_TEXT or _NO_NAME.search(value):
            raise ConfigError(f"the checkpoint's {where} must be a name, got {value!r:.80}")
    elif value is not None and not (isinstance(value, (bool, int, float)) and abs(value) <= _LARGEST):
        raise ConfigError(f"the checkpoint's {where} must be a number up to {_LARGEST}, got {value!r:.80}")


def _limits(weights: Mapping[str, Tensor], classes: int) -> dict[str, int]:
    """Return how many parts a network with the tensors of a checkpoint may have; ``numbers`` are tensor elements."""
    tensors = 2 * len(weights) + 100  # some networks replace layers while being built
    elements = 2 * sum(tensor.numel() for tensor in weights.values())
    # a new run may have more classes than the checkpoint; buffers need not be saved
    return {"parameters": tensors, "modules": 20 * tensors, "numbers": elements + classes * _WIDEST + _BUFFERS}


def _check_size(config: PreTrainedConfig, limits: Mapping[str, int]) -> None:
    """Build the network on the meta device, without memory, counting its parts.

    Raises:
        ConfigError: As soon as a limit is exceeded.
    """
    made = Counter[str]()

    def count(kind: str, number: int) -> None:
        made[kind] += number
        if made[kind] > limits[kind]:
            raise ConfigError(
                f"the checkpoint's network has more than {limits[kind]} {kind}, too many for the tensors of "
                "the checkpoint; use another checkpoint of the run"
            )

    def count_numbers(_: nn.Module, __: str, value: Tensor | None) -> None:
        count("numbers", 0 if value is None else value.numel())

    hooks = [
        register_module_parameter_registration_hook(lambda *_: count("parameters", 1)),
        register_module_parameter_registration_hook(count_numbers),
        register_module_buffer_registration_hook(count_numbers),
        register_module_module_registration_hook(lambda *_: count("modules", 1)),
    ]
    try:
        with torch.device("meta"):
            build(config)
    finally:
        for hook in hooks:
            hook.remove()
