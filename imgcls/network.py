"""Hugging Face image classifiers: build one by name, folder or recorded config, and read its preprocessing."""

import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperImageProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import is_timm_available
from transformers.utils import logging as transformers_logging

from imgcls.anatomy import Size, own_size
from imgcls.batch import Preprocessing
from imgcls.errors import ConfigError, RunError

log = logging.getLogger(__name__)

# architectures whose input is not an image as such
_UNUSABLE = {
    "dinat": "needs natten, which imgcls does not support",
    "imagegpt": "takes colour clusters in place of pixels",
    "shieldgemma2": "needs a text beside the image",
    "siglip2": "takes patches in place of images; siglip takes images",
}
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
    transformers_logging.set_verbosity_error()  # its table of reshaped weights: _report_missing is shorter
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
    processor = _image_processor(model_name, config)
    if processor is not None and _colours(processor).is_bgr:
        _turn_to_rgb(network)
    return network


def _turn_to_rgb(network: nn.Module) -> None:
    """Let a network that was trained on BGR images (mobilevit, pp_lcnet) take RGB: turn its first kernels round."""
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1))


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a classifier with random weights in float32."""
    try:
        network: PreTrainedModel = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    except ImportError as error:
        raise ConfigError(f"{_KEY}: {_first_line(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{_KEY}: {config.model_type} cannot be built: {_first_line(error)}") from error
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
    record["architectures"] = [type(network).__name__]
    return record


def load_config(model_name: str) -> PreTrainedConfig:
    """Read the config of a Hub id or local folder.

    Raises:
        ConfigError: If there is none.
        RunError: If the Hub cannot be reached.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(local_or_hub(model_name), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _load_error(model_name, error) from error
    reason = _UNUSABLE.get(config.model_type)
    if reason is None and type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        reason = "is no image classifier in transformers"
    if reason is not None:
        raise ConfigError(f"{_KEY}: {model_name!r} cannot be used: its architecture {config.model_type} {reason}")
    return config


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
        raise ConfigError(
            f"{_KEY}: no folder {model_name!r}; give a folder with config.json, or a Hub id such as microsoft/resnet-18"
        )
    return model_name


def set_classes(config: PreTrainedConfig, class_names: list[str]) -> None:
    """Give a config its number of classes and their names."""
    config.num_labels = len(class_names)  # some models (pvt) read this alone
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: number for number, name in enumerate(class_names)}
    config.architectures = config.architectures or []  # None fails where models share a type (deit, levit, perceiver)
    for key, value in {"label_names": list(class_names), "num_classes": len(class_names)}.items():
        if hasattr(config, key):  # timm's wrapper keeps the former labels here, and would write them out again
            setattr(config, key, value)


def read_preprocessing(model_name: str, config: PreTrainedConfig) -> Preprocessing:
    """Read how a pretrained model expects its images; where it is not stated, say so and take ImageNet's values.

    Raises:
        ConfigError: If its image processor cannot be followed.
        RunError: If the Hub cannot be reached.
    """
    processor = _image_processor(model_name, config)
    if processor is None:
        usual = _imagenet(config)
        log.info("%s states no preprocessing; ImageNet's mean and std at %s x %s are used", model_name, *usual.size)
        return usual
    colours = _colours(processor)
    size, shortest_edge = _geometry(processor, colours)
    mean, std = (tuple(float(f"{value:.6g}") for value in values) for values in (colours.mean, colours.std))
    return Preprocessing(size, shortest_edge, _interpolation(processor), mean, std)


def _image_processor(model_name: str, config: PreTrainedConfig) -> BaseImageProcessor | None:
    transformers_logging.set_verbosity_error()  # what runs without torchvision is no news
    try:
        return AutoImageProcessor.from_pretrained(local_or_hub(model_name), backend="pil", trust_remote_code=False)
    except OSError as error:
        if _is_unreachable(model_name, error):
            raise _load_error(model_name, error) from error
    except (ValueError, TypeError) as error:
        raise _load_error(model_name, error) from error
    if config.model_type != "timm_wrapper" or not is_timm_available():
        return None
    import timm  # an extra

    record = timm.get_pretrained_cfg(config.architecture)
    return TimmWrapperImageProcessor(record.to_dict()) if record else None


def _interpolation(processor: BaseImageProcessor) -> str:
    named: str = getattr(processor, "data_config", {}).get("interpolation", "")  # of timm
    return named if named in _RESAMPLE.values() else _RESAMPLE.get(getattr(processor, "resample", 2), "bilinear")


def _imagenet(config: PreTrainedConfig) -> Preprocessing:
    height, width = own_size(config) or (224, 224)
    return Preprocessing(size=(height, width), shortest_edge=round(min(height, width) / 0.875))


class _Colours(NamedTuple):
    mean: Tensor
    std: Tensor
    is_bgr: bool


def _colours(processor: BaseImageProcessor) -> _Colours:
    """Mean and std in RGB order for pixels scaled to 0..1, whatever way they come about, and whether the result is BGR.

    Each processor class has ways of its own (crop shares, offsets, normalising twice, defaults that its file does not
    repeat), so what it does is measured on images that show it, here and in ``_geometry``, rather than read.
    """
    black, white, red = (_centre(processor, colour) for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0)))
    is_bgr = int((red - black).argmax()) == 2
    if is_bgr:
        black, white = black.flip(0), white.flip(0)
    std = 1 / (white - black)
    return _Colours(0.0 - black * std, std, is_bgr)


def _centre(processor: BaseImageProcessor, colour: tuple[int, int, int]) -> Tensor:
    result = _run(processor, np.full((64, 64, 3), colour, np.uint8))
    return result[:, result.shape[1] // 2, result.shape[2] // 2]  # its borders may be padding


def _geometry(processor: BaseImageProcessor, colours: _Colours) -> tuple[Size, int | None]:
    """Size of the result, and the shorter side before the crop; None where both sides are resized for themselves."""
    views = [_view(processor, colours, height, width) for height, width in ((240, 320), (360, 270))]
    (size, _, _), (other, _, _) = views
    lengths = [length for _, sides, _ in views for length in sides]
    shares = [share for _, _, seen in views for share in seen]
    if size == other and _alike(lengths):
        return size, round(sum(lengths) / 4)
    if size == other and _alike([*shares, 1.0]):
        return size, None
    size = size if size == other else (min(size), min(size))
    shortest = round(min(size) / shares[0]) if _alike(shares) else None
    instead = "a resize" if shortest is None else f"shorter side {shortest} pixels, then a crop"
    name = type(processor).__name__.removesuffix("Pil")
    log.info("%s stretches, pads or varies in size; here: %s to %s x %s", name, instead, *size)
    return size, shortest


def _view(
    processor: BaseImageProcessor, colours: _Colours, height: int, width: int
) -> tuple[Size, list[float], list[float]]:
    """Show an image; return the result's size, how long the shorter side became, and the share that is seen.

    Length and share are judged vertically and horizontally.
    """
    y, x = (np.mgrid[:height, :width] + 0.5) * (255 / np.array([height, width]))[:, None, None]
    dither = np.random.default_rng(0).random((height, width, 1))  # ramps that rounding to 8 bits does not bend
    result = _run(processor, (np.stack([x, y, x], -1) + dither).astype(np.uint8))
    ramps = result.flip(0) if colours.is_bgr else result
    horizontal, vertical, _ = ramps * colours.std[:, None, None] + colours.mean[:, None, None]
    slopes = _slope(vertical), _slope(horizontal.T)
    lengths = [min(height, width) / side / slope for side, slope in zip((height, width), slopes, strict=True)]
    shares = [length * slope for length, slope in zip(result.shape[1:], slopes, strict=True)]
    return (result.shape[1], result.shape[2]), lengths, shares


def _run(processor: BaseImageProcessor, pixels: NDArray[np.uint8]) -> Tensor:
    result: Tensor = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0].float()
    if result.ndim != 3 or len(result) != 3:
        raise ConfigError(f"{_KEY}: its {type(processor).__name__} gives {tuple(result.shape)}, not (3, height, width)")
    return result


def _slope(ramp: Tensor) -> float:
    top, left = (length // 5 for length in ramp.shape)
    inner = ramp[top:-top, left:-left].mean(1)  # clear of padding
    steps = torch.arange(len(inner)) - (len(inner) - 1) / 2
    return float((steps * inner).sum() / (steps * steps).sum())


def _alike(values: list[float]) -> bool:
    return max(values) < 1.01 * min(values)


def _report_missing(network: PreTrainedModel, info: dict[str, Any], model_name: str) -> None:
    """Say which weights the source lacks; refuse a source that is for another network."""
    new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    total = len(network.state_dict())
    if len(new) > total / 2:
        raise ConfigError(
            f"{_KEY}: {model_name!r} holds weights for {total - len(new)} of {total} tensors; it is another network"
        )
    if new:
        names = sorted(new)
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        log.info("new weights, not from %s: %s%s", model_name, ", ".join(names[:4]), more)


def _load_error(model_name: str, error: Exception) -> ConfigError | RunError:
    if os.path.isdir(os.path.expanduser(model_name)):
        return ConfigError(f"{_KEY}: the folder {model_name!r} cannot be loaded: {_first_line(error)}")
    if _is_unreachable(model_name, error):
        return RunError(
            f"{_KEY}: {model_name!r} is neither in the local cache nor can the Hub be reached; "
            "connect once, or give a local folder"
        )
    return ConfigError(f"{_KEY}: {model_name!r} cannot be loaded: {_first_line(error)}")


def _is_unreachable(model_name: str, error: Exception) -> bool:
    signs = ("offline", "couldn't connect", "connection", "Connection", "internet")
    return not os.path.isdir(os.path.expanduser(model_name)) and any(sign in str(error) for sign in signs)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
