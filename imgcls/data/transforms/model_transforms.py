"""Transforms for the input of a pretrained model: its own evaluation steps, and a resize to its size."""

from dataclasses import replace
from typing import Any

import cv2

from imgcls.config.class_path import Spec
from imgcls.types import Preprocessing

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


def eval_specs(preprocessing: Preprocessing) -> list[Spec]:
    """Return the evaluation transforms of a pretrained model: a resize, and a centre crop if it has one."""
    height, width = preprocessing.size
    if preprocessing.shortest_edge is None:
        return [resize_spec(preprocessing)]
    resize = {"max_size": preprocessing.shortest_edge, **resampling(preprocessing)}
    crop = {"height": height, "width": width, "pad_if_needed": True}
    return [
        {"class_path": "albumentations.SmallestMaxSize", "init_args": resize},
        {"class_path": "albumentations.CenterCrop", "init_args": crop},
    ]


def resize_spec(preprocessing: Preprocessing) -> Spec:
    """Return a resize to the model's size that does not keep the aspect ratio."""
    height, width = preprocessing.size
    return {
        "class_path": "albumentations.Resize",
        "init_args": {"height": height, "width": width, **resampling(preprocessing)},
    }


def resampling(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the arguments of a transform that resizes as the pretrained model expects."""
    # OpenCV's interpolations do not antialias; area does, as Pillow does, with which the weights were trained
    return {"interpolation": _INTERPOLATION[preprocessing.interpolation], "area_for_downscale": "image"}


def less_cropped(preprocessing: Preprocessing) -> Preprocessing:
    """Halve the border that the centre crop of a pretrained model removes: resize to 240 instead of 256 before 224.

    The model's crop suits training crops from 8 % of the area, and objects in the middle of a photo. The presets train
    on larger crops, in which objects are smaller, so a smaller resize fits them (Touvron et al. 2019, "Fixing the
    train-test resolution discrepancy"); and objects at the border count. Measured in docs/benchmarks.md.

    Args:
        preprocessing: The input that the model expects.
    """
    largest, edge = max(preprocessing.size), preprocessing.shortest_edge  # a smaller resize would be padded
    if edge is None or edge <= largest:
        return preprocessing
    return replace(preprocessing, shortest_edge=(largest + edge) // 2)
