"""Presets of training augmentation."""

from typing import Any, Literal

import cv2

from imgcls.config.class_path import Spec
from imgcls.data.transforms.model_transforms import random_crop_spec
from imgcls.types import Preprocessing

Preset = Literal["light", "medium", "strong"]
EvalPreset = Literal["pretrained"]

DEFAULT_PRESET: Preset = "light"
_RATIO = (3 / 4, 4 / 3)  # width / height of the crops of a square size, the default of RandomResizedCrop


def preset_specs(preset: Preset, preprocessing: Preprocessing) -> list[Spec]:
    """Return the transforms of a preset for the input of a model."""
    scale = {"light": [0.25, 1.0], "medium": [0.25, 1.0], "strong": [0.15, 1.0]}[preset]
    crop = {"scale": scale}
    height, width = preprocessing.size
    if height != width:  # by default crops have an aspect ratio around 1, and would be stretched
        crop["ratio"] = [ratio * width / height for ratio in _RATIO]
    head = [random_crop_spec(preprocessing, **crop), _spec("HorizontalFlip")]
    return head + {"light": [], "medium": _medium(), "strong": _strong()}[preset]


def _medium() -> list[Spec]:
    colours = _spec("ColorJitter", brightness=[0.8, 1.2], contrast=[0.8, 1.2], saturation=[0.8, 1.2], hue=[0.0, 0.0])
    return [_spec("Affine", rotate=[-10, 10], shear=[-5, 5], border_mode=cv2.BORDER_REFLECT_101, p=0.5), colours]


def _strong() -> list[Spec]:
    """Two random operations per image (RandAugment, Cubuk et al. 2020), and erasing (Zhong et al. 2020)."""
    operations = [
        _spec("Affine", rotate=[-30, 30], border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        _spec("Affine", shear=[-15, 15], border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        _spec("Affine", translate_percent=[-0.2, 0.2], border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        _spec("ColorJitter", brightness=[0.5, 1.5], contrast=[1.0, 1.0], saturation=[1.0, 1.0], hue=[0, 0], p=1.0),
        _spec("ColorJitter", brightness=[1.0, 1.0], contrast=[0.5, 1.5], saturation=[1.0, 1.0], hue=[0, 0], p=1.0),
        _spec("ColorJitter", brightness=[1.0, 1.0], contrast=[1.0, 1.0], saturation=[0.5, 1.5], hue=[0, 0], p=1.0),
        _spec("Sharpen", p=1.0),
        _spec("AutoContrast", p=1.0),
        _spec("Equalize", p=1.0),
        _spec("Posterize", num_bits=[4, 7], p=1.0),
        _spec("Solarize", threshold_range=[0.5, 1.0], p=1.0),
        _spec("NoOp", p=1.0),
    ]
    erase = _spec("CoarseDropout", num_holes_range=[1, 1], hole_height_range=[0.1, 0.4], hole_width_range=[0.1, 0.4])
    erase["init_args"] |= {"p": 0.25}
    return [_spec("SomeOf", transforms=operations, n=2, replace=True, p=1.0), erase]


def _spec(name: str, **arguments: Any) -> Spec:
    return {"class_path": f"albumentations.{name}", "init_args": arguments}
