"""A pipeline of transforms: one function of an image and a seed."""

import os
import random
from functools import cached_property
from typing import Any, TypeAlias

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing Albumentations 2.0.8 would query a package index

import albumentations as A
import cv2
import numpy as np
import pydantic
import torch
from numpy.typing import NDArray

from imgcls.errors import ConfigError, first_line
from imgcls.images import Pixels

Transform: TypeAlias = A.BasicTransform | A.BaseCompose

_FLOATS = (
    "pixels must stay uint8, since the model normalises them; remove the transform, or use albumentations.Normalize at "
    "the top level of the list"
)
_OTHER_TARGETS = {"bboxes", "keypoints", "mask", "volume"}  # inputs of Albumentations other than the image


class Pipeline:
    """Albumentations transforms and callables, by their names for messages; ``where`` is their list's config key."""

    def __init__(self, named: dict[str, Transform], where: str) -> None:
        self.named = named
        self.where = where
        self._compose = A.Compose(self.transforms, is_check_shapes=False)  # unneeded for a single array
        self._dtype = np.float32 if any(map(is_normalize, self.transforms)) else np.uint8
        self.is_foreign = any(map(_is_foreign, self.transforms))
        """Whether a transform is of a user; it may use the global generators, which are seeded then."""

    @property
    def transforms(self) -> list[Transform]:
        """The transforms in order."""
        return list(self.named.values())

    def __call__(self, image: Pixels, seed: int) -> NDArray[Any]:
        """Apply the pipeline to uint8 ``(H, W, 3)``; all random choices depend on ``seed`` alone, any whole number.

        Returns:
            ``(H', W', 3)``, uint8, or float32 if the list contains ``albumentations.Normalize``.
        """
        if self.is_foreign:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
        _set_state(self._compose, seed, lazy=not self.is_foreign)  # a user's transform may need numpy's own class
        array = as_array(self._compose(image=image)["image"])
        if array.dtype != self._dtype:
            raise ConfigError(f"{self.where}: returns {array.dtype} pixels for some images; {_FLOATS}")
        return array

    def divide(self, count: int) -> "tuple[Pipeline, Pipeline]":
        """Return a pipeline of the first ``count`` transforms, and one of the others."""
        named = list(self.named.items())
        return Pipeline(dict(named[:count]), self.where), Pipeline(dict(named[count:]), self.where)

    def check(self, image: Pixels, draws: int = 8) -> tuple[int, int] | None:
        """Apply every transform to a real image, with and without those of a probability below 1.

        Args:
            image: uint8, ``(H, W, 3)``.
            draws: Number of seeds to try; 1 if the output size is known to be constant.

        Returns:
            The height and width of all outputs; None if they differ.

        Raises:
            ConfigError: If a transform fails, returns floats (except ``Normalize``), clips normalised pixels, or does
                not return three channels.
        """
        height, width = image.shape[:2]
        wider = np.asarray(cv2.resize(image, (width + width // 3 + 7, height)), dtype=np.uint8)
        sizes = {self._try(picture, with_optional) for picture in (image, wider) for with_optional in (True, False)}
        if len(sizes) == 1:
            sizes |= {self._try(image, True, seed) for seed in range(1, draws)}
        return sizes.pop() if len(sizes) == 1 else None

    def _try(self, image: Pixels, with_optional: bool, seed: int = 0) -> tuple[int, int]:
        array: NDArray[Any] = image
        normalised = False
        named = {name: t for name, t in self.named.items() if t.p == 1 or (t.p > 0 and with_optional)}
        for number, (name, transform) in enumerate(named.items(), start=1):
            if normalised and with_optional and not seed and not _is_foreign(transform):
                self._refuse_clipping(transform, name, array.shape)
            normalised = normalised or is_normalize(transform)
            result = self._apply(transform, name, array, seed)
            if isinstance(result, torch.Tensor) and number < len(named):
                raise ConfigError(f"{name}: returns a tensor, which later transforms cannot process; put it last")
            array = as_array(result)
            if array.dtype != np.uint8 and not normalised:
                raise ConfigError(f"{name}: returns {array.dtype} pixels; {_FLOATS}")
        if array.ndim != 3 or array.shape[2] != 3:
            raise ConfigError(f"{self.where}: must return images of shape (H, W, 3), got {array.shape}")
        return array.shape[0], array.shape[1]

    def _refuse_clipping(self, transform: Transform, name: str, shape: tuple[int, ...]) -> None:
        noise = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
        if as_array(self._apply(transform, name, noise)).min() >= 0:
            raise ConfigError(
                f"{name}: clips pixels to 0..1, which normalised pixels exceed; put it before albumentations.Normalize"
            )

    def _apply(self, transform: Transform, name: str, array: NDArray[Any], seed: int = 0) -> Any:
        try:
            _set_state(transform, seed)
            return transform(image=array, force_apply=True)["image"]
        except ConfigError:
            raise
        except Exception as error:
            if (isinstance(error, KeyError) and error.args[0] in _OTHER_TARGETS) or "missing keys" in str(error):
                raise ConfigError(f"{name}: cannot be used, since it needs more than an image ({error})") from error
            raise ConfigError(f"{name}: fails on an image of shape {array.shape}: {reason_of(error)}") from error


def is_normalize(transform: Transform) -> bool:
    """Whether a transform is ``albumentations.Normalize``, and not a subclass, which may do something else."""
    return type(transform) is A.Normalize


def reason_of(error: Exception) -> str:
    """Return an error of a transform or its constructor in one line."""
    if isinstance(error.__cause__, pydantic.ValidationError):  # Albumentations wraps it in many lines
        first = error.__cause__.errors()[0]
        return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
    return first_line(error)


def _is_foreign(transform: Transform) -> bool:
    if isinstance(transform, A.BaseCompose):
        return any(map(_is_foreign, transform.transforms))
    own = ("albumentations.", "imgcls.")
    return isinstance(transform, A.Lambda) or not type(transform).__module__.startswith(own)


class _LazyGenerator:
    """numpy's generator, created at first use: that takes long, and most transforms use Python's generator."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @cached_property
    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pickle looks these up before there is a seed
            raise AttributeError(name)
        return getattr(self._generator, name)


def _set_state(transform: Transform, seed: int, lazy: bool = False) -> None:
    # Albumentations' set_random_seed would give the transforms of a pipeline identical streams
    generator = _LazyGenerator(seed) if lazy else np.random.default_rng(seed)
    transform.set_random_state(generator, random.Random(seed))  # noqa: S311


def as_array(image: object) -> NDArray[Any]:
    """Return an image as an array ``(H, W, 3)``; a tensor is ``(3, H, W)``."""
    if isinstance(image, torch.Tensor):  # from ToTensorV2
        return image.permute(1, 2, 0).numpy()
    return np.asarray(image)
