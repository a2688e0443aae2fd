"""Augmentations by name, and what stands where none is named."""

from dataclasses import replace
from typing import Any, Literal

import cv2

from imgcls.config.class_path import Spec
from imgcls.data.transforms.pipeline import resampling
from imgcls.types import Preprocessing

Preset = Literal["light", "medium", "strong"]
EvalPreset = Literal["pretrained"]

DEFAULT_PRESET: Preset = "light"


def preset_specs(preset: Preset, preprocessing: Preprocessing) -> list[Spec]:
    """Return the list that a preset stands for.

    Args:
        preset: Its name.
        preprocessing: The model's input size and interpolation.
    """
    scale = {"light": [0.25, 1.0], "medium": [0.25, 1.0], "strong": [0.15, 1.0]}[preset]
    crop = {"size": list(preprocessing.size), "scale": scale, **resampling(preprocessing)}
    head = [_item("RandomResizedCrop", **crop), _item("HorizontalFlip")]
    return head + {"light": [], "medium": _medium(), "strong": _strong()}[preset]


def less_cropped(preprocessing: Preprocessing) -> Preprocessing:
    """Halve the border that the centre crop of a pretrained model cuts off: 240 to 224 in place of 256 to 224.

    Theirs goes with training crops from 8 % of the area and with objects in the middle of a photo. The presets train on
    larger crops, in which objects are smaller, and a smaller picture fits them (Touvron et al. 2019, "Fixing the
    train-test resolution discrepancy"); and what lies at the border counts. README, "Measured", has the figures.

    Args:
        preprocessing: How the model expects its images.
    """
    inner, edge = max(preprocessing.size), preprocessing.shortest_edge  # less than max would be padded
    if edge is None or edge <= inner:
        return preprocessing
    return replace(preprocessing, shortest_edge=(inner + edge) // 2)


def _medium() -> list[Spec]:
    colours = _item("ColorJitter", brightness=[0.8, 1.2], contrast=[0.8, 1.2], saturation=[0.8, 1.2], hue=[0.0, 0.0])
    return [_item("Affine", rotate=[-10, 10], shear=[-5, 5], border_mode=cv2.BORDER_REFLECT_101, p=0.5), colours]


def _strong() -> list[Spec]:
    """Two of many, drawn anew for each image (RandAugment, Cubuk et al. 2020), and erasing (Zhong et al. 2020)."""
    ways = [
        _item("Affine", rotate=[-30, 30], border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        _item("Affine", shear=[-15, 15], border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        _item("Affine", translate_percent=[-0.2, 0.2], border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        _item("ColorJitter", brightness=[0.5, 1.5], contrast=[1.0, 1.0], saturation=[1.0, 1.0], hue=[0, 0], p=1.0),
        _item("ColorJitter", brightness=[1.0, 1.0], contrast=[0.5, 1.5], saturation=[1.0, 1.0], hue=[0, 0], p=1.0),
        _item("ColorJitter", brightness=[1.0, 1.0], contrast=[1.0, 1.0], saturation=[0.5, 1.5], hue=[0, 0], p=1.0),
        _item("Sharpen", p=1.0),
        _item("AutoContrast", p=1.0),
        _item("Equalize", p=1.0),
        _item("Posterize", num_bits=[4, 7], p=1.0),
        _item("Solarize", threshold_range=[0.5, 1.0], p=1.0),
        _item("NoOp", p=1.0),
    ]
    erase = _item("CoarseDropout", num_holes_range=[1, 1], hole_height_range=[0.1, 0.4], hole_width_range=[0.1, 0.4])
    erase["init_args"] |= {"p": 0.25}
    return [_item("SomeOf", transforms=ways, n=2, replace=True, p=1.0), erase]


def _item(name: str, **arguments: Any) -> Spec:
    return {"class_path": f"albumentations.{name}", "init_args": arguments}
