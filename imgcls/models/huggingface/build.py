"""Build Hugging Face image classifiers by name, folder or recorded config."""

import json
import os
import re
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from imgcls.errors import ConfigError, first_line
from imgcls.models.architecture import Size
from imgcls.models.huggingface.hub import check_reachable, load_config, load_error, quiet_transformers, require_timm
from imgcls.models.huggingface.hub_ids import KEY, local_or_hub
from imgcls.models.huggingface.input_size import config_for_size

# torch's errors for Python objects in its own format, and for other pickles, whose frames have opcode 149
_PICKLED = re.compile(r"unsupported (global|operand 149)", re.IGNORECASE)
# arguments of timm.create_model that read or download a file, and two names that only look so
_OF_FILES = re.compile(r"pretrained(?!_window_sizes)|checkpoint|cache|.*(?<!drop)_(path|dir|folder|file|url)$")


def load_network(
    model_name: str, pretrained: bool, class_names: list[str], image_size: Size | None = None, is_bgr: bool = False
) -> tuple[PreTrainedModel, list[str]]:
    """Build a classifier; its head is new unless the number of classes is that of the pretrained model.

    Args:
        model_name: A Hub id, or a local folder with ``config.json`` and, if ``pretrained``, weights.
        pretrained: Whether to load weights; else they are random.
        class_names: Names of the outputs.
        image_size: Height and width of the images in pixels; None is the pretrained model's size.
        is_bgr: Whether the pretrained model expects BGR images; it is converted to RGB.

    Returns:
        The network, and the names of the weights that are missing in the pretrained ones.

    Raises:
        ConfigError: If there is no such model or it is not an image classifier.
        RunError: If the Hub cannot be reached.
    """
    config = load_config(model_name)
    check_timm(config.to_dict(), f"{KEY}: {model_name!r}")
    set_classes(config, class_names)
    if image_size is not None:
        config = config_for_size(config, image_size, f"{KEY} {model_name!r}")
    if not pretrained:
        return build(config), []
    try:
        with quiet_transformers():
            network, info = AutoModelForImageClassification.from_pretrained(
                local_or_hub(model_name),
                config=config,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,  # not the dtype of the file, which may be float16
                output_loading_info=True,
            )
    except (SafetensorError, UnpicklingError, EOFError) as error:
        raise _unreadable(model_name, error) from error
    except (OSError, ImportError, TypeError, ValueError) as error:
        check_reachable(model_name, SAFE_WEIGHTS_NAME)
        raise load_error(model_name, error) from error
    network.train()  # from_pretrained sets evaluation mode, and Lightning keeps it
    new = _missing(network, info, model_name)
    if is_bgr:
        _convert_to_rgb(network)
    return network, new


def _unreadable(model_name: str, error: Exception) -> ConfigError:
    """Return the error to raise for a file of weights that is damaged, or holds more than tensors."""
    if _PICKLED.search(str(error)):
        return ConfigError(
            f"{KEY}: the weights of {model_name!r} hold Python objects beside the tensors, which could run code; save "
            "only the tensors, as model.safetensors"
        )
    local = os.path.isdir(local_or_hub(model_name))
    where, remedy = ("in the folder", " (in a clone: git lfs pull)") if local else ("of", "")
    return ConfigError(
        f"{KEY}: the weights {where} {model_name!r} are damaged or a Git LFS pointer; download them again{remedy}"
    )


def _convert_to_rgb(network: nn.Module) -> None:
    """Reverse the input channels of a network trained on BGR images (mobilevit, pp_lcnet)."""
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1))


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a classifier with random weights in float32."""
    try:
        network: PreTrainedModel = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(f"{KEY}: {first_line(error)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{KEY}: {config.model_type} cannot be built: {first_line(error)}") from error
    return network.train()


def check_weights(own: Mapping[str, Tensor], recorded: Mapping[str, Tensor]) -> None:
    """Check that the state dict of a checkpoint matches that of its network.

    Raises:
        ConfigError: Counts the missing, unknown and misshapen tensors and names the first of each.
    """
    faults = {
        "missing": own.keys() - recorded.keys(),
        "unknown": recorded.keys() - own.keys(),
        "of another shape": {key for key in own.keys() & recorded.keys() if own[key].shape != recorded[key].shape},
    }
    found = [f"{len(keys)} {fault} ({min(keys)})" for fault, keys in faults.items() if keys]
    if found:
        raise ConfigError(
            f"the checkpoint's weights do not match its network: of {len(own)} tensors, {', '.join(found)}; use "
            "another checkpoint of the run"
        )


def check_timm(config: Mapping[str, Any], source: str) -> None:
    """Refuse a config of timm's wrapper without timm, of an unknown architecture, or whose arguments name files.

    Raises:
        ConfigError: Names ``source`` and the value.
    """
    if config.get("model_type") != "timm_wrapper":
        return
    require_timm(config["model_type"], source)
    import timm  # an extra

    name = str(config.get("architecture"))
    if not re.fullmatch(r"[\w.]+", name) or not timm.is_model(name):
        raise ConfigError(f"{source} names {name!r}, which is not an architecture of timm")
    arguments = config.get("model_args") or {}
    if not _is_plain(arguments):
        raise ConfigError(f"{source} has model_args {arguments}; only plain values that name no file are allowed")


def _is_plain(value: Any) -> bool:
    """Whether a value consists of numbers, names, lists and dicts, none of which names a file."""
    if isinstance(value, Mapping):
        return all(not _OF_FILES.match(str(key)) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or (isinstance(value, (bool, int, float, str)) and not re.search(r"[/\\:]", str(value)))


def record_of(network: PreTrainedModel) -> dict[str, Any]:
    """Return the config of a network as plain values."""
    record: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=False))
    record["architectures"] = [type(network).__name__]
    return record


def set_classes(config: PreTrainedConfig, class_names: list[str]) -> None:
    """Set the number and names of the classes in a config."""
    config.num_labels = len(class_names)  # the only value that some models (pvt) read
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: number for number, name in enumerate(class_names)}
    config.architectures = config.architectures or []  # None fails for types of several models (deit, perceiver)
    for key, value in {"label_names": list(class_names), "num_classes": len(class_names)}.items():
        if hasattr(config, key):  # timm's wrapper keeps the former labels here and would save them
            setattr(config, key, value)


def _missing(network: PreTrainedModel, info: dict[str, Any], model_name: str) -> list[str]:
    """Return the names of missing weights; refuse weights of another network."""
    new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    total = len(network.state_dict())
    if len(new) > total / 2:
        raise ConfigError(
            f"{KEY}: {model_name!r} has weights for {total - len(new)} of {total} tensors; they are of another network"
        )
    return sorted(new)
