"""The sections of the data's configuration, and what their values must be."""

import inspect
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeVar

from imgcls.data.transforms.presets import EvalPreset, Preset
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError, known_names

KEY = "data.init_args"
_LARGEST_BATCH = 2**20
_Section = TypeVar("_Section")


@dataclass
class DatasetClasses:
    """The dataset of each split; a path stands for an ``imgcls.FolderImageDataset`` of that folder.

    Args:
        train: Labelled images to train on; they also give the list of classes.
        validation: Labelled images to choose the best epoch by; null holds a part of ``train`` out.
        test: Labelled images for the final figures.
        predict: Images to predict.
    """

    train: ImageDataset | str | None = None
    validation: ImageDataset | str | None = None
    test: ImageDataset | str | None = None
    predict: ImageDataset | str | None = None


@dataclass
class Augmentations:
    """Lists of ``{class_path, init_args}``: Albumentations transforms, or callables f(image=array) -> {"image": array}.

    Args:
        train: Applied to training images; or a preset: ``light`` is a random crop to the model's size and a horizontal
            flip, ``medium`` also turns, shears and changes colours a little, ``strong`` does two of many such things at
            a time, as RandAugment does, and erases a rectangle now and then; null is ``light``.
        eval: Applied to validation, test and prediction images; ``pretrained`` resizes and crops as the pretrained
            model expects, null keeps half of the border that this crop cuts off.
    """

    train: list[dict[str, Any]] | Preset | None = None
    eval: list[dict[str, Any]] | EvalPreset | None = None


def as_datasets(given: DatasetClasses | dict[str, Any]) -> dict[str, ImageDataset | None]:
    """Return the dataset of each split, None where there is none.

    Raises:
        ConfigError: If a value is no dataset, or one that reads nothing.
    """
    if isinstance(given, (str, os.PathLike)):
        raise ConfigError(
            f"{KEY}.dataset_classes: {str(given)!r}; name its split: DatasetClasses(train={str(given)!r})"
        )
    classes = _made_of(given, DatasetClasses, "dataset_classes") if isinstance(given, dict) else given
    for name, value in vars(classes).items():
        if isinstance(value, str) and value.lstrip().startswith("{"):  # what is no class is taken for a path
            raise ConfigError(f"{KEY}.dataset_classes.{name}: no dataset class takes these arguments: {value}")
        if isinstance(value, ImageDataset):
            key = f"dataset_classes.{name}.init_args.max_pixels"
            require(value.max_pixels >= 1, key, value.max_pixels, "be at least 1")
    return {
        name: value if value is None or isinstance(value, ImageDataset) else FolderImageDataset(os.fspath(value))
        for name, value in vars(classes).items()
    }


def require(fits: bool, key: str, value: object, rule: str) -> None:
    """Refuse a value.

    Raises:
        ConfigError: Names the key, the value and the rule, unless it fits.
    """
    if not fits:
        raise ConfigError(f"{KEY}.{key}: {value}; it must {rule}")


def check_batch_size(size: int) -> None:
    """Refuse a batch of no images, or of more than a machine can hold.

    Raises:
        ConfigError: Says the limit.
    """
    require(size >= 1, "batch_size", size, "be at least 1")
    require(size <= _LARGEST_BATCH, "batch_size", size, f"be at most {_LARGEST_BATCH}")


def check_class_names(names: list[str]) -> None:
    """Refuse names that are empty or stand there twice.

    Raises:
        ConfigError: Names the first.
    """
    for number, name in enumerate(names):
        if not name.strip():
            raise ConfigError(f"{KEY}.class_names[{number}]: {name!r}; every class needs a name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"{KEY}.class_names: {twice[0]!r} stands there twice; every class needs a name of its own")


def check_regex(text: str | None) -> None:
    """Refuse what is no regular expression.

    Raises:
        ConfigError: Says why.
    """
    try:
        re.compile(text or "")
    except re.error as error:
        raise ConfigError(f"{KEY}.group_regex: {text!r} is no regular expression: {error}") from error


def as_augmentations(given: Augmentations | dict[str, Any]) -> Augmentations:
    """Return the lists, which the Python API may give as a dict."""
    return _made_of(given, Augmentations, "augmentations") if isinstance(given, dict) else given


def _made_of(given: dict[str, Any], kind: type[_Section], key: str) -> _Section:
    known = inspect.signature(kind).parameters
    for name in given.keys() - known.keys():
        raise ConfigError(f"{KEY}.{key}: no key {name!r}{known_names(name, known)}")
    return kind(**given)
