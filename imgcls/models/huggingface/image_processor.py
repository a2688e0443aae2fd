"""Preprocessing that a pretrained model expects, measured on its image processor."""

import json
import logging
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME

from imgcls.errors import ConfigError
from imgcls.models.architecture import Size, own_size
from imgcls.models.huggingface.hub import check_reachable, load_error, quiet_transformers
from imgcls.models.huggingface.hub_ids import KEY, local_or_hub
from imgcls.runtime.tables import short_path
from imgcls.types import Preprocessing

log = logging.getLogger(__name__)

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "bilinear", 5: "bilinear"}  # of Pillow


def read_preprocessing(model_name: str, config: PreTrainedConfig) -> tuple[Preprocessing, bool]:
    """Return the preprocessing of a pretrained model; ImageNet's (logged) if it has no image processor.

    Returns:
        The preprocessing of RGB images, and whether the model expects BGR images.

    Raises:
        ConfigError: If its image processor cannot be loaded or reproduced.
        RunError: If the Hub cannot be reached.
    """
    processor = _image_processor(model_name, config)
    if processor is None:
        height, width = own_size(config) or (224, 224)
        usual = Preprocessing(size=(height, width), shortest_edge=round(min(height, width) / 0.875))
        line = "No %s in %s: normalising with ImageNet mean and std, image size %s x %s"
        log.info(line, IMAGE_PROCESSOR_NAME, short_path(model_name), *usual.size)
        return usual, False
    colours = _colours(processor)
    size, shortest_edge = _geometry(processor, colours)
    mean, std = (tuple(float(f"{value:.6g}") for value in values) for values in (colours.mean, colours.std))
    # timm's wrapper, which has no backend, and lanczos before torchvision 0.27 go through Pillow
    kernel: Literal["torchvision", "pillow"] = (
        "torchvision" if getattr(processor, "backend", "pil") == "torchvision" else "pillow"
    )
    return Preprocessing(size, shortest_edge, _interpolation(processor), mean, std, kernel), colours.is_bgr


def _image_processor(model_name: str, config: PreTrainedConfig) -> BaseImageProcessor | None:
    path = local_or_hub(model_name)
    known = config if config.model_type == "timm_wrapper" else None  # without it an unknown processor is an error
    try:
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(path, config=known, trust_remote_code=False)
    except OSError:
        check_reachable(model_name, IMAGE_PROCESSOR_NAME)
        _check_json(path)
    except (ValueError, TypeError, ImportError) as error:
        raise load_error(model_name, error) from error
    if config.model_type != "timm_wrapper":
        return None
    import timm  # an extra
    from transformers import TimmWrapperImageProcessor

    record = timm.get_pretrained_cfg(config.architecture)
    return TimmWrapperImageProcessor(record.to_dict()) if record else None


def _check_json(path: str) -> None:
    """Distinguish a damaged file from a missing one, for which transformers raises the same error."""
    name = IMAGE_PROCESSOR_NAME
    file = os.path.join(path, name) if os.path.isdir(path) else try_to_load_from_cache(path, name)
    if not isinstance(file, str) or not os.path.isfile(file):
        return
    try:
        json.loads(Path(file).read_bytes())
    except ValueError as error:
        raise ConfigError(f"{KEY}: {file} is not JSON: damaged or a Git LFS pointer; download it again") from error


def _interpolation(processor: BaseImageProcessor) -> str:
    named: str = getattr(processor, "data_config", {}).get("interpolation", "")  # of timm
    return named if named in _RESAMPLE.values() else _RESAMPLE.get(getattr(processor, "resample", 2), "bilinear")


class _Colours(NamedTuple):
    mean: Tensor
    std: Tensor
    is_bgr: bool


def _colours(processor: BaseImageProcessor) -> _Colours:
    """Measure mean and std in RGB order for pixels scaled to 0..1, and whether the result is BGR.

    Processor classes differ in too much to read their configs (crop fractions, offsets, double normalisation, defaults
    that are not saved), so their effect is measured on test images, here and in ``_geometry``.
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
    """Measure the output size and the shorter side before the crop; None if the aspect ratio is not kept."""
    measured = [_measure(processor, colours, height, width) for height, width in ((240, 320), (360, 270))]
    (size, _, _), (other, _, _) = measured
    lengths = [length for _, sides, _ in measured for length in sides]
    shares = [share for _, _, visible in measured for share in visible]
    if size == other and _alike(lengths):
        return size, _exact(processor, round(sum(lengths) / 4))
    if size == other and _alike([*shares, 1.0]):
        return size, None
    size = size if size == other else (min(size), min(size))
    shortest = round(min(size) / shares[0]) if _alike(shares) else None
    instead = "a resize" if shortest is None else f"shorter side {shortest} pixels, then a crop"
    name = type(processor).__name__.removesuffix("Pil")
    log.info("%s stretches, pads or has no fixed size; using %s to %s x %s instead", name, instead, *size)
    return size, shortest


def _exact(processor: BaseImageProcessor, edge: int) -> int:
    """Return the shorter side to which the processor resizes, which was measured to about a pixel."""
    return next((near for near in (edge, edge + 1, edge - 1, edge + 2, edge - 2) if _keeps(processor, near)), edge)


def _keeps(processor: BaseImageProcessor, edge: int) -> bool:
    """Whether an image of that side is not resampled: neighbours on a chessboard still differ as black and white do."""
    board = (np.indices((edge, edge)).sum(0) % 2 * 255).astype(np.uint8)
    steps = _run(processor, np.stack([board] * 3, -1))[0].diff().abs()
    return bool(steps.min() > 0.99 * steps.max())


def _measure(
    processor: BaseImageProcessor, colours: _Colours, height: int, width: int
) -> tuple[Size, list[float], list[float]]:
    """Process a test image; return the output size, the resized shorter side and the visible share.

    The last two are lists of a vertical and a horizontal measurement.
    """
    y, x = (np.mgrid[:height, :width] + 0.5) * (255 / np.array([height, width]))[:, None, None]
    dither = np.random.default_rng(0).random((height, width, 1))  # unbiased rounding of the ramps to 8 bits
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
        raise ConfigError(
            f"{KEY}: its {type(processor).__name__} must return (3, height, width), got {tuple(result.shape)}"
        )
    return result


def _slope(ramp: Tensor) -> float:
    top, left = (length // 5 for length in ramp.shape)
    inner = ramp[top:-top, left:-left].mean(1)  # without padding
    steps = torch.arange(len(inner)) - (len(inner) - 1) / 2
    return float((steps * inner).sum() / (steps * steps).sum())


def _alike(values: list[float]) -> bool:
    return max(values) < 1.01 * min(values)
