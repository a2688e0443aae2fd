"""Evaluation transforms as an image processor of transformers, or as the settings from which timm makes its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Resampling
from transformers import CLIPImageProcessor

from imgcls.config.class_path import Spec
from imgcls.data.transforms.from_checkpoint import KEY
from imgcls.errors import ConfigError
from imgcls.models.architecture import Size

_RESIZES = ("imgcls.ResizeShortestEdge", "imgcls.Resize")
_CROP = "imgcls.CenterCrop"
_LIKE_IT = {  # transforms of Albumentations, which resize by OpenCV -> those that an image processor has
    "albumentations.Resize": "imgcls.Resize",
    "albumentations.SmallestMaxSize": "imgcls.ResizeShortestEdge",
    "albumentations.CenterCrop": "imgcls.CenterCrop",
}
_LATER = {"albumentations.Normalize", "albumentations.pytorch.ToTensorV2"}  # in the classifier's mean and std


@dataclass(frozen=True)
class Geometry:
    """What happens to an image before it is normalised."""

    edge: int | None  # the shorter side after the resize; None if there is none, or the aspect ratio is not kept
    size: Size | None  # after a resize that does not keep the aspect ratio
    crop: Size | None  # the centre crop
    interpolation: str
    kernel: str  # torchvision or pillow


def read_geometry(steps: Sequence[Spec]) -> Geometry:
    """Read the geometry of evaluation transforms.

    Raises:
        ConfigError: Names the transform that no image processor has.
    """
    edge = size = crop = None
    interpolation, kernels = "bilinear", set[str]()
    for number, step in enumerate(steps):
        name, arguments = step["class_path"], step.get("init_args") or {}
        is_first = edge is size is crop is None
        if arguments.get("p", 1) != 1 or not (
            name in _LATER or (name in _RESIZES and is_first) or (name == _CROP and crop is None)
        ):
            raise _refusal(f"{KEY}[{number}] {name}", _LIKE_IT.get(name))
        if name in _LATER:
            continue
        kernels.add(arguments.get("kernel", "torchvision"))
        if name == _CROP:
            crop = (arguments["height"], arguments["width"])
            continue
        interpolation = arguments.get("interpolation", "bilinear")
        edge = arguments.get("edge")
        size = (arguments["height"], arguments["width"]) if edge is None else None
    if len(kernels) > 1:
        raise _refusal(f"{KEY} with the kernels {' and '.join(sorted(kernels))}")
    return Geometry(edge, size, crop, interpolation, kernels.pop() if kernels else "torchvision")


def image_processor(geometry: Geometry, mean: Sequence[float], std: Sequence[float]) -> CLIPImageProcessor:
    """Make the image processor for a network of transformers.

    All networks get that of CLIP: it converts to RGB, and has no rules of its own.

    Raises:
        ConfigError: If the kernel is another than torchvision's.
    """
    if geometry.kernel != "torchvision":
        raise _refusal(f"{KEY} with the kernel {geometry.kernel}")
    arguments: dict[str, Any] = {"size": {"shortest_edge": geometry.edge}} if geometry.edge else {}
    if geometry.size is not None:
        arguments = {"size": _named(geometry.size)}
    return CLIPImageProcessor(
        do_resize=bool(arguments),
        resample=int(Resampling[geometry.interpolation.upper()]),
        do_center_crop=geometry.crop is not None,
        crop_size=_named(geometry.crop or (1, 1)),
        image_mean=list(mean),
        image_std=list(std),
        do_convert_rgb=True,
        **arguments,
    )


def timm_settings(geometry: Geometry, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Return ``pretrained_cfg`` for a network of timm.

    Raises:
        ConfigError: If timm cannot express the geometry.
    """
    if geometry.kernel != "pillow":
        raise _refusal(f"{KEY} with the kernel {geometry.kernel} for a network of timm")
    crop = geometry.crop or geometry.size
    resized = geometry.size if geometry.edge is None else (geometry.edge, geometry.edge)
    if crop is None or resized is None or (geometry.edge is not None and crop[0] != crop[1]):
        raise _refusal(f"{KEY}: a crop to {crop} after a resize to {resized}")
    share = _share(crop, resized)
    return {
        "input_size": [3, *crop],
        "interpolation": geometry.interpolation,
        "crop_pct": share,
        "crop_mode": "squash" if geometry.edge is None else "center",
        "mean": list(mean),
        "std": list(std),
    }


def _share(crop: Size, resized: Size) -> float:
    """Return the share of the resized image that the crop keeps; timm resizes to ``floor(crop / share)``."""
    for length in (resized[0], resized[0] + 0.5):  # the second if the first is rounded to a length below
        share = crop[0] / length
        if tuple(math.floor(side / share) for side in crop) == resized:
            return share
    raise _refusal(f"{KEY}: a crop of {crop} after a resize to {resized}")


def _named(size: Size) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _refusal(what: str, instead: str | None = None) -> ConfigError:
    return ConfigError(
        f"--format hf: {what}: no image processor of transformers has it; use --format onnx or torch, or train with "
        f"{instead or 'data.augmentations.eval: null'}"
    )
