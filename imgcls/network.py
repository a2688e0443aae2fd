"""Hugging Face image classifiers: build one by name, folder or recorded config, and read its preprocessing."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging as transformers_logging

from imgcls.batch import Preprocessing
from imgcls.errors import ConfigError, RunError

log = logging.getLogger(__name__)

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "bilinear", 5: "bilinear"}  # of Pillow
_KEY = "model.init_args.model_name"


def load_network(model_name: str, pretrained: bool, class_names: list[str]) -> PreTrainedModel:
    """Build a classifier for the given classes; its head is new unless the classes are as many as before.

    Args:
        model_name: A Hub id, or a local folder with ``config.json`` and, if ``pretrained``, weights.
        pretrained: False: random weights.
        class_names: Names of the outputs.

    Raises:
        ConfigError: If there is no such model, or it is not an image classifier.
        RunError: If the Hub cannot be reached.
    """
    config = load_config(model_name)
    set_classes(config, class_names)
    if not pretrained:
        return build(config)
    transformers_logging.set_verbosity_error()  # its table of reshaped weights; the head's are expected, others we report
    transformers_logging.disable_progress_bar()
    try:
        network, info = AutoModelForImageClassification.from_pretrained(
            local_or_hub(model_name),
            config=config,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,  # else the checkpoint's own, float16 for some
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise _load_error(model_name, error) from error
    network.train()  # from_pretrained leaves evaluation mode, and Lightning keeps it
    _report_missing(network, info, model_name)
    return network  # type: ignore[no-any-return]


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a classifier with random weights in float32."""
    try:
        network: PreTrainedModel = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    except ImportError as error:
        raise ConfigError(f"{_KEY}: {_first_line(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{_KEY}: {config.model_type!r} is no image classifier: {_first_line(error)}") from error
    return network.train()


def build_recorded(record: dict[str, Any], class_names: list[str]) -> PreTrainedModel:
    """Build the architecture that a checkpoint recorded; nothing is fetched."""
    values = {key: value for key, value in record.items() if key not in {"auto_map", "transformers_version"}}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config.architectures = record.get("architectures")
    set_classes(config, class_names)
    return build(config)


def record_of(network: PreTrainedModel) -> dict[str, Any]:
    """Return the network's config as plain values."""
    record: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=False))
    record["architectures"] = network.config.architectures
    return record


def load_config(model_name: str) -> PreTrainedConfig:
    """Read the config of a Hub id or local folder.

    Raises:
        ConfigError: If there is none.
        RunError: If the Hub cannot be reached.
    """
    try:
        return AutoConfig.from_pretrained(local_or_hub(model_name))
    except (OSError, ValueError, KeyError) as error:
        raise _load_error(model_name, error) from error


def local_or_hub(model_name: str) -> str:
    """Return the folder or the Hub id; refuse what looks like a path and is none.

    Raises:
        ConfigError: If a folder is meant and does not exist or holds no ``config.json``.
    """
    path = Path(model_name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{_KEY}: the folder {model_name!r} holds no config.json")
        return str(path)
    if model_name.startswith((".", "/", "~")) or model_name.count("/") > 1 or path.exists():
        raise ConfigError(f"{_KEY}: no folder {model_name!r}; give a folder with config.json, or a Hub id such as microsoft/resnet-18")
    return model_name


def set_classes(config: PreTrainedConfig, class_names: list[str]) -> None:
    """Give a config its number of classes and their names."""
    config.num_labels = len(class_names)  # some models (pvt) read this alone
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: number for number, name in enumerate(class_names)}
    config.architectures = config.architectures or []  # None fails where several models share a type (deit, levit, perceiver)
    for key, value in {"label_names": list(class_names), "num_classes": len(class_names)}.items():
        if hasattr(config, key):  # timm's wrapper keeps the former labels here, and would write them out again
            setattr(config, key, value)


def read_preprocessing(model_name: str, config: PreTrainedConfig) -> Preprocessing:
    """Read how a pretrained model expects its images; ImageNet's values, and a line that says so, where it is not stated."""
    timm_record = getattr(config, "pretrained_cfg", None)
    if timm_record:
        return _from_timm(timm_record)
    try:
        record, _ = BaseImageProcessor.get_image_processor_dict(local_or_hub(model_name))
    except OSError:
        preprocessing = _imagenet(config)
        log.info("%s states no preprocessing; ImageNet's mean and std at %s x %s are used", model_name, *preprocessing.size)
        return preprocessing
    return _from_processor(record, config)


def _imagenet(config: PreTrainedConfig) -> Preprocessing:
    height, width = _pair(getattr(config, "image_size", None) or 224)
    return Preprocessing(size=(height, width), shortest_edge=round(min(height, width) / 0.875))


def _from_timm(record: dict[str, Any]) -> Preprocessing:
    _, height, width = record.get("input_size", (3, 224, 224))
    share = record.get("crop_pct") or 0.875
    squash = record.get("crop_mode") == "squash" or height != width
    interpolation = record.get("interpolation") or "bicubic"
    return Preprocessing(
        size=(height, width),
        shortest_edge=None if squash else int(min(height, width) / share),
        interpolation=interpolation if interpolation in _RESAMPLE.values() else "bicubic",
        mean=tuple(record.get("mean") or Preprocessing.mean),
        std=tuple(record.get("std") or Preprocessing.std),
    )


def _from_processor(record: dict[str, Any], config: PreTrainedConfig) -> Preprocessing:
    size = record.get("size") or getattr(config, "image_size", None) or 224
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    crop = record.get("crop_size") if record.get("do_center_crop") else None
    if shortest and crop is None:
        # ConvNeXt: enlarge by crop_pct and crop below 384 pixels, squash from there
        share = record.get("crop_pct") or 0.875
        target, shortest = (shortest, shortest), None if shortest >= 384 else int(shortest / share)
    else:
        target = _pair(crop if crop is not None else size)
        shortest = shortest or (_shortest(size) if crop is not None else None)
    mean, std = _normalization(record)
    return Preprocessing(
        size=target,
        shortest_edge=shortest,
        interpolation=_RESAMPLE.get(record.get("resample", 2), "bilinear"),
        mean=mean,
        std=std,
    )


def _normalization(record: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fold rescaling, offset and normalisation into one mean and std for pixels scaled to 0..1."""
    factor = 255 * record.get("rescale_factor", 1 / 255) if record.get("do_rescale", True) else 255.0
    offset = 1.0 if record.get("rescale_offset") else 0.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if record.get("do_normalize", True):
        mean = tuple(record.get("image_mean") or Preprocessing.mean)
        std = tuple(record.get("image_std") or Preprocessing.std)
    again = std if record.get("include_top") else (1.0, 1.0, 1.0)  # EfficientNet normalises twice
    return (
        tuple((m + offset) / factor for m in mean),
        tuple(s * a / factor for s, a in zip(std, again, strict=True)),
    )


def _pair(size: Any) -> tuple[int, int]:  # noqa: ANN401 - as the JSON has it
    if isinstance(size, dict):
        return (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
    return (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)


def _shortest(size: Any) -> int | None:  # noqa: ANN401 - as the JSON has it
    height, width = _pair(size)
    return height if height == width else None


def _report_missing(network: PreTrainedModel, info: dict[str, Any], model_name: str) -> None:
    """Say which weights the source lacks; refuse a source that is for another network."""
    new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    total = len(network.state_dict())
    if len(new) > total / 2:
        raise ConfigError(f"{_KEY}: {model_name!r} holds weights for {total - len(new)} of {total} tensors only; it is another network")
    if new:
        names = sorted(new)
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        log.info("new weights, not from %s: %s%s", model_name, ", ".join(names[:4]), more)


def _load_error(model_name: str, error: Exception) -> ConfigError | RunError:
    if os.path.isdir(os.path.expanduser(model_name)):
        return ConfigError(f"{_KEY}: the folder {model_name!r} cannot be loaded: {_first_line(error)}")
    text = str(error)
    if any(sign in text for sign in ("offline", "couldn't connect", "connection", "Connection", "internet")):
        return RunError(
            f"{_KEY}: {model_name!r} is neither in the local cache nor can the Hub be reached; "
            "connect once, or give a local folder"
        )
    return ConfigError(f"{_KEY}: {model_name!r} cannot be loaded: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
