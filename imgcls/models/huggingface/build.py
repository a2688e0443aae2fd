"""Hugging Face image classifiers: build one by name, folder or recorded config."""

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
from transformers.utils import logging as transformers_logging

from imgcls.errors import ConfigError, first_line
from imgcls.models.huggingface.hub import KEY, check_reachable, load_config, load_error, local_or_hub, require_timm
from imgcls.models.huggingface.image_processor import takes_bgr

# what torch says of Python objects in its own format, and of a plain pickle, whose frames are operand 149
_PICKLED = re.compile(r"unsupported (global|operand 149)", re.IGNORECASE)
# arguments of timm.create_model that read a file or fetch one; two names only look so
_OF_FILES = re.compile(r"pretrained(?!_window_sizes)|checkpoint|cache|.*(?<!drop)_(path|dir|folder|file|url)$")


def load_network(model_name: str, pretrained: bool, class_names: list[str]) -> tuple[PreTrainedModel, list[str]]:
    """Build a classifier for the given classes; its head is new unless the classes are as many as before.

    Args:
        model_name: A Hub id, or a local folder with ``config.json`` and, if ``pretrained``, weights.
        pretrained: False: random weights.
        class_names: Names of the outputs.

    Returns:
        The network, and the names of the weights that the pretrained ones lack.

    Raises:
        ConfigError: If there is no such model, or it is not an image classifier.
        RunError: If the Hub cannot be reached.
    """
    config = load_config(model_name)
    check_timm(config.to_dict(), f"{KEY}: {model_name!r}")
    set_classes(config, class_names)
    if not pretrained:
        return build(config), []
    transformers_logging.set_verbosity_error()  # its table of new weights; we report the unexpected
    transformers_logging.disable_progress_bar()
    try:
        network, info = AutoModelForImageClassification.from_pretrained(
            local_or_hub(model_name),
            config=config,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,  # else the checkpoint's own, float16 for some
            output_loading_info=True,
        )
    except (SafetensorError, UnpicklingError, EOFError) as error:
        if _PICKLED.search(str(error)):
            raise ConfigError(
                f"{KEY}: the weights of {model_name!r} hold Python objects beside the tensors, which could run code; "
                "save the tensors alone, as model.safetensors"
            ) from error
        local = os.path.isdir(local_or_hub(model_name))
        where, remedy = ("in the folder", ", in a clone by git lfs pull") if local else ("of", "")
        raise ConfigError(
            f"{KEY}: the weights {where} {model_name!r} are damaged, or a pointer of Git LFS; fetch them again{remedy}"
        ) from error
    except (OSError, ImportError, TypeError, ValueError) as error:
        check_reachable(model_name, SAFE_WEIGHTS_NAME)
        raise load_error(model_name, error) from error
    network.train()  # from_pretrained leaves evaluation mode, and Lightning keeps it
    new = _missing(network, info, model_name)
    if takes_bgr(model_name, config):
        _turn_to_rgb(network)
    return network, new


def _turn_to_rgb(network: nn.Module) -> None:
    """Let a network that was trained on BGR images (mobilevit, pp_lcnet) take RGB: turn its first kernels round."""
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
    """Refuse the weights of a checkpoint that are not those of the network.

    Args:
        own: The state of the network as built from the checkpoint's record.
        recorded: The state that the checkpoint holds.

    Raises:
        ConfigError: Counts what is missing, too many and of another shape, and names the first.
    """
    faults = {
        "missing": own.keys() - recorded.keys(),
        "unknown": recorded.keys() - own.keys(),
        "of another shape": {key for key in own.keys() & recorded.keys() if own[key].shape != recorded[key].shape},
    }
    found = [f"{len(keys)} {fault} ({min(keys)})" for fault, keys in faults.items() if keys]
    if found:
        raise ConfigError(
            f"the checkpoint's weights are not those of its network: of {len(own)} tensors, {', '.join(found)}; "
            "take another checkpoint of the run"
        )


def check_timm(config: Mapping[str, Any], source: str) -> None:
    """Refuse a config of timm's wrapper without timm, of no architecture of it, or with arguments that name files.

    Raises:
        ConfigError: Names ``source`` and what it asks for.
    """
    if config.get("model_type") != "timm_wrapper":
        return
    require_timm(config["model_type"], source)
    import timm  # an extra

    name = str(config.get("architecture"))
    if not re.fullmatch(r"[\w.]+", name) or not timm.is_model(name):
        raise ConfigError(f"{source} names {name!r}, which is no architecture of timm")
    arguments = config.get("model_args") or {}
    if not _is_plain(arguments):
        raise ConfigError(f"{source} has model_args {arguments}, for timm; plain values that name no file are taken")


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, names and their lists and dicts, none of which leads to a file."""
    if isinstance(value, Mapping):
        return all(not _OF_FILES.match(str(key)) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or (isinstance(value, (bool, int, float, str)) and not re.search(r"[/\\:]", str(value)))


def record_of(network: PreTrainedModel) -> dict[str, Any]:
    """Return the network's config as plain values."""
    record: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=False))
    record["architectures"] = [type(network).__name__]
    return record


def set_classes(config: PreTrainedConfig, class_names: list[str]) -> None:
    """Give a config its number of classes and their names."""
    config.num_labels = len(class_names)  # some models (pvt) read this alone
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: number for number, name in enumerate(class_names)}
    config.architectures = config.architectures or []  # None fails where models share a type (deit, levit, perceiver)
    for key, value in {"label_names": list(class_names), "num_classes": len(class_names)}.items():
        if hasattr(config, key):  # timm's wrapper keeps the former labels here, and would write them out again
            setattr(config, key, value)


def _missing(network: PreTrainedModel, info: dict[str, Any], model_name: str) -> list[str]:
    """Return the weights that the source lacks; refuse a source that is for another network."""
    new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    total = len(network.state_dict())
    if len(new) > total / 2:
        raise ConfigError(
            f"{KEY}: {model_name!r} holds weights for {total - len(new)} of {total} tensors; it is another network"
        )
    return sorted(new)
