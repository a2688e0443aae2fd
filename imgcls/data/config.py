"""Sections of the data configuration, and checks of their values."""

import inspect
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from imgcls.data.scan.files import HashKind
from imgcls.data.transforms.presets import EvalPreset, Preset
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.split_folders import open_split_folders
from imgcls.errors import ConfigError, known_names

log = logging.getLogger(__name__)

KEY = "data.init_args"
Decode = Literal["exact", "scaled"]
CreateDataset = bool | Literal["auto"]

_LARGEST_BATCH = 2**20
_LARGEST_SIDE = 2**14  # pixels; as in the transforms that a checkpoint may record
_Section = TypeVar("_Section")


@dataclass
class DatasetClasses:
    """The dataset of each split; a path is short for an ``imgcls.FolderImageDataset`` of that folder.

    Args:
        train: Labelled images to train on, which also define the classes. A folder with ``train`` and ``val`` (or
            ``valid``, ``validation``) or ``test`` in it stands for these splits, as far as they are null here.
        validation: Labelled images that decide which epoch is best; null holds out a part of ``train``.
        test: Labelled images for the final evaluation.
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
        train: Transforms of training images, or a preset. ``light`` is a random crop to the model's size and a
            horizontal flip; ``medium`` adds small rotations, shears and colour changes; ``strong`` applies two of
            twelve operations per image, as RandAugment does, and sometimes erases a rectangle. Null is ``light``.
        eval: Transforms of validation, test and prediction images. ``pretrained`` resizes and crops as the pretrained
            model's image processor does, with the same pixels; null keeps half of the border that this crop removes.
    """

    train: list[dict[str, Any]] | Preset | None = None
    eval: list[dict[str, Any]] | EvalPreset | None = None


def as_dataset_classes(given: DatasetClasses | dict[str, Any]) -> DatasetClasses:
    """Return the section, in Python also a dict, with the folders of splits in place of folders that contain them.

    Raises:
        ConfigError: If it is a path, or has an unknown key.
    """
    if isinstance(given, (str, os.PathLike)):
        raise ConfigError(
            f"{KEY}.dataset_classes must name the split: DatasetClasses(train={str(given)!r}), got {str(given)!r}"
        )
    classes = as_section(given, DatasetClasses, "dataset_classes")
    return replace(classes, **open_split_folders(vars(classes)))


def as_datasets(classes: DatasetClasses) -> dict[str, ImageDataset | None]:
    """Return the dataset of each split, None where there is none.

    Raises:
        ConfigError: If a value is not a dataset, or its ``max_pixels`` is not positive.
    """
    for name, value in vars(classes).items():
        if isinstance(value, str) and value.lstrip().startswith("{"):  # the parser passes an invalid class as a text
            raise ConfigError(f"{KEY}.dataset_classes.{name}: no dataset class has these arguments: {value}")
        if isinstance(value, ImageDataset):
            key = f"dataset_classes.{name}.init_args.max_pixels"
            require(value.max_pixels >= 1, key, value.max_pixels, "be at least 1")
    return {
        name: value if value is None or isinstance(value, ImageDataset) else FolderImageDataset(os.fspath(value))
        for name, value in vars(classes).items()
    }


def as_section(given: _Section | dict[str, Any], kind: type[_Section], key: str) -> _Section:
    """Return a section of the configuration, which in Python may be given as a dict.

    Raises:
        ConfigError: If the dict has an unknown key.
    """
    if not isinstance(given, dict):
        return given
    known = inspect.signature(kind).parameters
    for name in given.keys() - known.keys():
        raise ConfigError(f"{KEY}.{key}: unknown key {name!r}{known_names(name, known)}")
    return kind(**given)


def require(valid: bool, key: str, value: object, rule: str) -> None:
    """Refuse an invalid value.

    Raises:
        ConfigError: "KEY must RULE, got VALUE", unless the value is valid.
    """
    if not valid:
        raise ConfigError(f"{KEY}.{key} must {rule}, got {value}")


def check_loading(batch_size: int, num_workers: int | None, timeout: float, decode: Decode) -> None:
    """Refuse values that no loader can work with.

    Raises:
        ConfigError: Names the key.
    """
    require(batch_size >= 1, "batch_size", batch_size, "be at least 1")
    require(batch_size <= _LARGEST_BATCH, "batch_size", batch_size, f"be at most {_LARGEST_BATCH}")
    require(num_workers is None or num_workers >= 0, "num_workers", num_workers, "be at least 0, or null")
    require(timeout >= 0, "timeout", timeout, "be at least 0 seconds")
    require(decode in get_args(Decode), "decode", repr(decode), "be exact or scaled")


def as_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return ``image_size`` as height and width; None if it is null.

    Raises:
        ConfigError: If it is neither one positive number nor two.
    """
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    valid = len(sides) == 2 and all(isinstance(side, int) and 1 <= side <= _LARGEST_SIDE for side in sides)
    rule = f"be a number of pixels from 1 to {_LARGEST_SIDE}, [height, width], or null"
    require(valid and not isinstance(size, bool), "image_size", size, rule)
    return sides[0], sides[1]


def check_class_names(names: list[str]) -> None:
    """Refuse empty and repeated class names.

    Raises:
        ConfigError: Names the first.
    """
    for index, name in enumerate(names):
        require(bool(name.strip()), f"class_names[{index}]", repr(name), "not be blank")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"{KEY}.class_names must be unique, got {repeated[0]!r} twice")


def check_cache(create_dataset: CreateDataset, cache_size: int | None, content_hash: HashKind) -> None:
    """Refuse values that the pixel cache cannot work with; log that ``cache_size`` alone has no effect.

    Raises:
        ConfigError: Names the key.
    """
    require(create_dataset in (True, False, "auto"), "create_dataset", create_dataset, "be true, false or auto")
    require(cache_size is None or cache_size >= 1, "cache_size", cache_size, "be at least 1, or null")
    require(content_hash in get_args(HashKind), "content_hash", content_hash, "be full, sampled or none")
    if create_dataset is True and content_hash == "none":
        raise ConfigError(
            f"{KEY}.content_hash must be full or sampled with create_dataset: true, which identifies images by "
            "content, got none"
        )
    if cache_size is not None and not create_dataset:
        log.info("%s.cache_size: %s has no effect with create_dataset: false", KEY, cache_size)
