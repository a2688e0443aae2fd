"""Transforms for the input of a pretrained model: its own evaluation steps, and a resize to its size."""

from dataclasses import replace
from typing import Any

import cv2

from imgcls.config.class_path import Spec
from imgcls.types import Preprocessing

_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


def eval_specs(preprocessing: Preprocessing) -> list[Spec]:
    """Return the evaluation transforms of a pretrained model: a resize, and a centre crop if it has one."""
    height, width = preprocessing.size
    edge = preprocessing.shortest_edge
    if edge is None:
        return [resize_spec(preprocessing)]
    if preprocessing.kernel == "opencv":
        return [
            _spec("albumentations.SmallestMaxSize", max_size=edge, **_resampling(preprocessing)),
            _spec("albumentations.CenterCrop", height=height, width=width, pad_if_needed=True),
        ]
    return [
        _spec("imgcls.ResizeShortestEdge", edge=edge, **_resampling(preprocessing)),
        _spec("imgcls.CenterCrop", height=height, width=width, kernel=preprocessing.kernel),
    ]


def resize_spec(preprocessing: Preprocessing) -> Spec:
    """Return a resize to the model's size that does not keep the aspect ratio."""
    height, width = preprocessing.size
    return _spec(f"{_package(preprocessing)}.Resize", height=height, width=width, **_resampling(preprocessing))


def random_crop_spec(preprocessing: Preprocessing, **crop: Any) -> Spec:
    """Return a random crop, with these other arguments, that is resized to the model's size.

    Its kernel is torchvision's also where the model's is Pillow's, which takes three to four times as long and
    differs by one level in 0.3 % of the values (docs/benchmarks.md).
    """
    resampling = _resampling(preprocessing)
    if preprocessing.kernel == "pillow":
        resampling["kernel"] = "torchvision"
    size = list(preprocessing.size)
    return _spec(f"{_package(preprocessing)}.RandomResizedCrop", size=size, **crop, **resampling)


def _package(preprocessing: Preprocessing) -> str:
    return "albumentations" if preprocessing.kernel == "opencv" else "imgcls"


def _resampling(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the arguments of a transform that resizes with the kernel of the pretrained model."""
    if preprocessing.kernel == "opencv":  # its interpolations do not antialias; area does
        return {"interpolation": _OPENCV[preprocessing.interpolation], "area_for_downscale": "image"}
    return {"interpolation": preprocessing.interpolation, "kernel": preprocessing.kernel}


def _spec(class_path: str, **arguments: Any) -> Spec:
    return {"class_path": class_path, "init_args": arguments}


def less_cropped(preprocessing: Preprocessing) -> Preprocessing:
    """Halve the border that the centre crop of a pretrained model removes: resize to 240 instead of 256 before 224.

    The model's crop suits training crops from 8 % of the area, and objects in the middle of a photo. The presets train
    on larger crops, in which objects are smaller, so a smaller resize fits them (Touvron et al. 2019, "Fixing the
    train-test resolution discrepancy"); and objects at the border count. Measured in docs/benchmarks.md.
    """
    largest, edge = max(preprocessing.size), preprocessing.shortest_edge  # a smaller resize would be padded
    if edge is None or edge <= largest:
        return preprocessing
    return replace(preprocessing, shortest_edge=(largest + edge) // 2)
