"""Augmentation pipelines: from the YAML list to one function of (image, seed), and the model's own evaluation steps."""

import inspect
import os
import random
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, TypeAlias

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask a package index for news

import albumentations as A
import cv2
import numpy as np
import pydantic
import torch
from numpy.typing import NDArray

from imgcls.config.class_path import Spec, check_arguments, class_path_of, find_class
from imgcls.errors import ConfigError, first_line
from imgcls.images import Pixels
from imgcls.types import Normalization, Preprocessing

Item: TypeAlias = A.BasicTransform | A.BaseCompose

NORMALIZE = "Normalize"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_FLOATS = (
    "pixels stay uint8 and the model normalises them; remove the item, or put albumentations.Normalize itself, at the "
    "top level of the list, in its place"
)
_TARGETS = {"bboxes", "keypoints", "mask", "volume"}  # of Albumentations, beside the image
_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


class Pipeline:
    """Albumentations transforms and plain callables, applied one after the other.

    Args:
        named: Name for messages -> item, in their order; ``build_pipeline`` makes them of a YAML list.
        where: The config key of the list, for messages.
    """

    def __init__(self, named: dict[str, Item], where: str) -> None:
        self.named = named
        self.where = where
        self._compose = A.Compose(self.items, is_check_shapes=False)  # there is one array, of a shape that is known
        self._dtype = np.float32 if any(map(_is_normalize, self.items)) else np.uint8
        self.is_foreign = any(map(_is_foreign, self.items))
        """Whether an item is not of Albumentations; it may draw from the global generators, which are then seeded."""

    @property
    def items(self) -> list[Item]:
        """The items in their order."""
        return list(self.named.values())

    def __call__(self, image: Pixels, seed: int) -> NDArray[Any]:
        """Apply the pipeline; every random choice follows from ``seed``.

        Args:
            image: uint8, ``(H, W, 3)``.
            seed: Any whole number.

        Returns:
            ``(H', W', 3)``, uint8, or float32 where the list holds ``albumentations.Normalize``.
        """
        if self.is_foreign:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
        _set_state(self._compose, seed, late=not self.is_foreign)  # a user's code may insist on numpy's class
        array = _as_array(self._compose(image=image)["image"])
        if array.dtype != self._dtype:
            raise ConfigError(f"{self.where}: makes {array.dtype} pixels of some images; {_FLOATS}")
        return array

    def divide(self, count: int) -> "tuple[Pipeline, Pipeline]":
        """Return the first ``count`` items as a list of their own, and the others."""
        named = list(self.named.items())
        return Pipeline(dict(named[:count]), self.where), Pipeline(dict(named[count:]), self.where)

    def check(self, image: Pixels, draws: int = 8) -> tuple[int, int] | None:
        """Try every item on a real image, with and without those that are applied by chance.

        Args:
            image: The image.
            draws: How many draws must give one size; 1 for a list that is known to.

        Returns:
            The height and width that every image gets, or None if they differ from image to image.

        Raises:
            ConfigError: If an item fails, makes floats (``Normalize`` apart), clips those that ``Normalize`` made, or
                does not leave three channels.
        """
        height, width = image.shape[:2]
        other = cv2.resize(image, (width + width // 3 + 7, height))
        pictures = image, np.asarray(other, dtype=np.uint8)
        sizes = {self._try(picture, by_chance) for picture in pictures for by_chance in (True, False)}
        if len(sizes) == 1:
            sizes |= {self._try(image, True, seed) for seed in range(1, draws)}
        return sizes.pop() if len(sizes) == 1 else None

    def _try(self, image: Pixels, by_chance: bool, seed: int = 0) -> tuple[int, int]:
        array: NDArray[Any] = image
        normalised = False
        named = {name: item for name, item in self.named.items() if item.p == 1 or (item.p > 0 and by_chance)}
        for number, (name, item) in enumerate(named.items(), start=1):
            if normalised and by_chance and not seed and not _is_foreign(item):
                self._refuse_clipping(item, name, array.shape)
            normalised = normalised or _is_normalize(item)
            result = self._try_item(item, name, array, seed)
            if isinstance(result, torch.Tensor) and number < len(named):
                raise ConfigError(f"{name}: makes a tensor, which the items behind it cannot take; put it last")
            array = _as_array(result)
            if array.dtype != np.uint8 and not normalised:
                raise ConfigError(f"{name}: makes {array.dtype} pixels; {_FLOATS}")
        if array.ndim != 3 or array.shape[2] != 3:
            raise ConfigError(f"{self.where}: gives an image of shape {array.shape}; (H, W, 3) is needed")
        return array.shape[0], array.shape[1]

    def _refuse_clipping(self, item: Item, name: str, shape: tuple[int, ...]) -> None:
        noise = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
        if _as_array(self._try_item(item, name, noise)).min() >= 0:
            raise ConfigError(
                f"{name}: clips pixels to 0..1, and normalised ones lie beyond; put it in front of "
                "albumentations.Normalize"
            )

    def _try_item(self, item: Item, name: str, array: NDArray[Any], seed: int = 0) -> Any:
        try:
            _set_state(item, seed)
            return item(image=array, force_apply=True)["image"]
        except ConfigError:
            raise
        except Exception as error:
            if (isinstance(error, KeyError) and error.args[0] in _TARGETS) or "missing keys" in str(error):
                raise ConfigError(f"{name}: needs more than an image ({error}), and cannot be used here") from error
            raise ConfigError(f"{name}: fails on an image of shape {array.shape}: {reason_of(error)}") from error


def build_pipeline(specs: list[Spec], where: str) -> Pipeline:
    """Build a pipeline of items of the form ``{class_path, init_args}``.

    Args:
        specs: The YAML list.
        where: Its config key, for messages.

    Raises:
        ConfigError: If an item cannot be built; the message names the item.
    """
    places = [f"{where}[{number}]" for number in range(len(specs))]
    return Pipeline({_name(s, place): build_item(s, place) for s, place in zip(specs, places, strict=True)}, where)


def build_item(spec: Spec, where: str) -> Item:
    """Build one item of an augmentation list.

    Raises:
        ConfigError: If the class, one of its arguments or one of their values is wrong.
    """
    class_path = class_path_of(spec, where)
    name = f"{where} {class_path}"
    given = spec.get("init_args") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{name}: init_args are named values, not {given!r}")
    target = find_class(class_path, "albumentations", name)
    arguments = {key: _build_nested(value, f"{where}.{key}") for key, value in given.items()}
    _check(target, arguments, name)
    if inspect.isfunction(target):
        return _custom(partial(target, **arguments), name)
    try:
        with np.errstate(divide="ignore"):  # of a Normalize by 0, which is refused by name
            item = target(**arguments)
    except Exception as error:
        raise ConfigError(f"{name}: {reason_of(error)}") from error
    if isinstance(item, (A.BasicTransform, A.BaseCompose)):
        return item
    if callable(item):
        return _custom(item, name)
    raise ConfigError(f"{name}: is neither an Albumentations transform nor callable as f(image=array)")


def find_normalization(specs: list[Spec] | None, where: str) -> Normalization | None:
    """Return what the list's ``albumentations.Normalize`` does, None if it holds none.

    Raises:
        ConfigError: If it holds two, or one that does not treat every image alike.
    """
    found = []
    for number, spec in enumerate(specs or []):
        name = _name(spec, f"{where}[{number}]")
        if name.endswith(NORMALIZE) and _is_normalize(item := build_item(spec, f"{where}[{number}]")):
            found.append((name, item))
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(f"{found[1][0]}: the list normalises already, by {found[0][0]}; remove one of them")
    [(name, item)] = found
    if item.normalization != "standard" or item.p < 1:
        raise ConfigError(
            f"{name}: normalization {item.normalization!r} with p {item.p} differs from image to image and cannot be "
            "kept with the model; use 'standard' with p 1"
        )
    if {np.size(item.mean), np.size(item.std)} - {1, 3}:
        raise ConfigError(f"{name}: mean and std need one value, or three")
    if np.min(item.std) <= 0:
        raise ConfigError(f"{name}: std {item.std}; it must be above 0")
    scale = item.max_pixel_value / 255
    mean = np.broadcast_to(np.asarray(item.mean) * scale, 3)
    std = np.broadcast_to(np.asarray(item.std) * scale, 3)
    return Normalization(tuple(map(float, mean)), tuple(map(float, std)))


def eval_specs(preprocessing: Preprocessing) -> list[Spec]:
    """The evaluation steps that a pretrained model expects: resize, and crop where it does."""
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
    """A resize to the model's size that does not keep the aspect ratio."""
    height, width = preprocessing.size
    return {
        "class_path": "albumentations.Resize",
        "init_args": {"height": height, "width": width, **resampling(preprocessing)},
    }


def resampling(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the arguments of a transform that resizes as the pretrained model expects."""
    # OpenCV's interpolations do not antialias; area does, as Pillow's do, with which the weights were trained
    return {"interpolation": _INTERPOLATION[preprocessing.interpolation], "area_for_downscale": "image"}


def _name(spec: Spec, where: str) -> str:
    return f"{where} {class_path_of(spec, where)}"


def _build_nested(value: Any, where: str) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return build_item(value, where)
    if isinstance(value, (list, tuple)):
        return [_build_nested(item, f"{where}[{number}]") for number, item in enumerate(value)]
    return value


def _check(target: Callable[..., Any], given: dict[str, Any], name: str) -> None:
    try:
        parameters = dict(inspect.signature(target).parameters)
    except ValueError:  # some of those written in C have none
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        check_arguments(given, parameters, name)
    for key, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in _VARIADIC
        if not optional and key not in {*given, "image"}:
            raise ConfigError(f"{name}: needs the argument {key!r}")


def _custom(function: Callable[..., Any], name: str) -> A.Lambda:
    return A.Lambda(image=partial(_call_custom, function, name), p=1.0)


def _call_custom(function: Callable[..., Any], name: str, image: NDArray[Any], **_: object) -> NDArray[Any]:
    result = function(image=image)
    if not isinstance(result, dict) or "image" not in result:
        raise ConfigError(f"{name}: must return {{'image': array}}, not {type(result).__name__}")
    return _as_array(result["image"])


def _is_normalize(item: Item) -> bool:
    # not a subclass, which may do something else
    return type(item) is A.Normalize


def _is_foreign(item: Item) -> bool:
    # code of the user's draws from the global generators, which Albumentations' own transforms leave alone
    if isinstance(item, A.BaseCompose):
        return any(map(_is_foreign, item.transforms))
    return isinstance(item, A.Lambda) or not type(item).__module__.startswith("albumentations.")


class _LateGenerator:
    """numpy's generator, made when it is first used: most transforms draw from Python's, and making this takes long."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @cached_property
    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what pickle asks for before there is a seed
            raise AttributeError(name)
        return getattr(self._generator, name)


def _set_state(item: Item, seed: int, late: bool = False) -> None:
    # not set_random_seed: it gives all transforms of a pipeline one and the same stream
    generator = _LateGenerator(seed) if late else np.random.default_rng(seed)
    item.set_random_state(generator, random.Random(seed))  # noqa: S311


def _as_array(image: object) -> NDArray[Any]:
    if isinstance(image, torch.Tensor):  # ToTensorV2
        return image.permute(1, 2, 0).numpy()
    return np.asarray(image)


def reason_of(error: Exception) -> str:
    """Return in one line what an item or its constructor complains of."""
    if isinstance(error.__cause__, pydantic.ValidationError):  # of which Albumentations makes many lines
        first = error.__cause__.errors()[0]
        return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
    return first_line(error)
