"""Validate the evaluation transforms recorded in a checkpoint against a table of harmless classes."""

from collections.abc import Mapping
from typing import Any, NoReturn

from imgcls.config.class_path import Spec
from imgcls.config.safe_values import is_safe_value, is_word
from imgcls.errors import ConfigError

KEY = "data.init_args.augmentations.eval"

# of Albumentations 2.0.8: none of them accepts a function, a file or another image
_NAMES = """
    AdditiveNoise AdvancedBlur Affine AutoContrast Blur CLAHE CenterCrop ChannelDropout ChannelShuffle
    ChromaticAberration CoarseDropout ColorJitter Crop CropAndPad D4 Defocus Downscale ElasticTransform Emboss Equalize
    Erasing FancyPCA FromFloat GaussNoise GaussianBlur GlassBlur GridDistortion GridDropout GridElasticDeform HEStain
    HorizontalFlip HueSaturationValue ISONoise Illumination ImageCompression InvertImg LongestMaxSize MedianBlur
    Morphological MotionBlur MultiplicativeNoise NoOp Normalize OpticalDistortion Pad PadIfNeeded Perspective
    PiecewiseAffine PixelDropout PlanckianJitter PlasmaBrightnessContrast PlasmaShadow Posterize RGBShift
    RandomBrightnessContrast RandomCrop RandomCropFromBorders RandomFog RandomGamma RandomGravel RandomGridShuffle
    RandomRain RandomResizedCrop RandomRotate90 RandomScale RandomShadow RandomSizedCrop RandomSnow RandomSunFlare
    RandomToneCurve Resize RingingOvershoot Rotate SafeRotate SaltAndPepper Sharpen ShiftScaleRotate ShotNoise
    SmallestMaxSize Solarize Spatter SquareSymmetry Superpixels ThinPlateSpline ToFloat ToGray ToRGB ToSepia ToTensorV2
    Transpose UnsharpMask VerticalFlip XYMasking ZoomBlur
"""
TRANSFORMS = frozenset(_NAMES.split())
OWN = frozenset({"CenterCrop", "RandomResizedCrop", "Resize", "ResizeShortestEdge"})
COMPOSITIONS = frozenset(
    {"Compose", "OneOf", "OneOrOther", "RandomOrder", "SelectiveChannelTransform", "Sequential", "SomeOf"}
)
ALLOWED_ARGUMENTS = {"Compose": frozenset({"transforms", "p", "seed"})}  # its others are about boxes, points and masks
_PATHS = {
    **{name: f"albumentations.{name}" for name in TRANSFORMS | COMPOSITIONS},
    **{f"albumentations.{name}": f"albumentations.{name}" for name in TRANSFORMS | COMPOSITIONS},
    **{f"imgcls.{name}": f"imgcls.{name}" for name in OWN},
    "albumentations.pytorch.ToTensorV2": "albumentations.pytorch.ToTensorV2",
    "ToTensorV2": "albumentations.pytorch.ToTensorV2",
    "albumentations.ToTensorV2": "albumentations.pytorch.ToTensorV2",
}
_NESTED = {"transforms", "first", "second"}  # arguments of compositions that are transforms themselves
_REFUSED = {"mask", "mask_params", "additional_targets"}  # arguments that may be a function, or its parameters
_LARGEST = 2**14  # value of a number, for example a size in pixels
_LARGEST_OF = {"seed": 2**32} | dict.fromkeys(("max_value", "max_pixel_value", "mean", "std"), 2**16)  # 16-bit pixels
_MOST_STEPS = 100
_MOST_ITEMS = 1000


def recorded_steps(steps: Any) -> list[Spec]:
    """Return the transforms with class paths from the table, and arguments that are numbers and words.

    Raises:
        ConfigError: Names the transform that is not in the table, or the value that is neither.
    """
    if not isinstance(steps, list) or len(steps) > _MOST_STEPS:
        raise ConfigError(f"{KEY}: the checkpoint's steps must be a list of at most {_MOST_STEPS}")
    return [_step(step, f"{KEY}[{number}]") for number, step in enumerate(steps)]


def _step(step: Any, where: str) -> Spec:
    class_path = step.get("class_path") if isinstance(step, dict) else None
    if not isinstance(class_path, str):
        raise ConfigError(f"{where}: the checkpoint's step must be {{class_path, init_args}}, got {step!r:.80}")
    if class_path not in _PATHS:
        raise ConfigError(
            f"{KEY}: the checkpoint names {class_path:.80}, but only Albumentations' and imgcls' transforms with plain "
            "values are loaded from a checkpoint; add --config with the YAML of the run"
        )
    arguments = step.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"{where} {class_path}: init_args must be a mapping, got {arguments!r:.80}")
    known = _PATHS[class_path]
    kind = known.rpartition(".")[2]
    nested = _NESTED if kind in COMPOSITIONS else set()
    for key in arguments.keys() - ALLOWED_ARGUMENTS.get(kind, arguments.keys()):
        _refuse(f"{where}.{key}")
    return {
        "class_path": known,
        "init_args": {
            key: _nested(value, f"{where}.{key}") if key in nested else _plain(key, value, f"{where}.{key}")
            for key, value in arguments.items()
        },
    }


def _nested(value: Any, where: str) -> Any:
    if isinstance(value, list) and len(value) <= _MOST_STEPS:
        return [_step(item, f"{where}[{number}]") for number, item in enumerate(value)]
    return None if value is None else _step(value, where)


def _refuse(where: str) -> NoReturn:
    raise ConfigError(f"{where}: is not loaded from a checkpoint; add --config with the YAML of the run")


def _plain(key: str, value: Any, where: str) -> Any:
    """Return a number, a word, or a list or mapping of these; refuse anything else."""
    largest = _LARGEST_OF.get(key, _LARGEST)
    if key in _REFUSED and value is not None:
        _refuse(where)
    if isinstance(value, list) and len(value) <= _MOST_ITEMS:
        return [_plain(key, item, where) for item in value]
    is_small = isinstance(value, Mapping) and len(value) <= _MOST_ITEMS
    if is_small and all(map(is_word, value)) and "class_path" not in value:
        return {name: _plain(key, item, where) for name, item in value.items()}
    if is_safe_value(value, largest):
        return value
    raise ConfigError(f"{where}: the checkpoint's value must be a number up to {largest} or a word, got {value!r:.80}")
