"""The images to check: those of the configuration, or those in folders."""

import logging
import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pandas as pd

from imgcls.data.datamodule import ImageDataModule
from imgcls.data.splitting.class_labels import refuse_empty
from imgcls.datasets.dataset import ImageDataset, read_sample
from imgcls.datasets.folder import EMPTY, FolderImageDataset, to_predict
from imgcls.datasets.labels import Label, names_in
from imgcls.datasets.split_folders import split_folders
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError
from imgcls.images import Pixels

log = logging.getLogger(__name__)

LABELLED = ("train", "validation", "test")  # splits in which labels and leaks matter
SPLITS = (*LABELLED, "predict")


class CheckedImage(NamedTuple):
    """An image to check: its split, its id and label in its dataset (sorted, if multi-label), and where to read it."""

    split: str
    path: str
    label: Label | None
    data: ImageDataset
    row: int

    def read(self) -> Pixels:
        """Return the pixels; raise an ImageError if they cannot be read."""
        return read_sample(self.data, self.row)


@dataclass
class Source:
    """The images of a dataset, and the files that are not images.

    Args:
        images: All images, split by split.
        ignored: Files that a rule excludes: path -> rule.
        empty: Class folders without an image.
    """

    images: list[CheckedImage]
    ignored: dict[str, str]
    empty: list[str]


def images_of_configuration(data: ImageDataModule) -> Source:
    """Return the images of ``dataset_classes``; images that fit would hold out of ``train`` count as train.

    Raises:
        ConfigError: If there is no dataset, or an empty one.
    """
    given = {split: _to_check(split, data.datasets[split]) for split in SPLITS}
    used = [(split, found) for split, found in given.items() if found is not None]
    if not used:
        raise ConfigError(
            "check: no data; type: imgcls check PHOTOS, a folder with one folder of images per class, or imgcls check "
            "--config FILE.yaml"
        )
    for split, found in used:
        refuse_empty(found, split)
    images = [image for split, found in used for image in _images(split, found)]
    return _source(images, [found for _, found in used])


def _to_check(split: str, data: ImageDataset | None) -> ImageDataset | None:
    if isinstance(data, StreamImageDataset):
        log.info("%s is a stream and is not checked", split)
        return None
    return data if data is None or split != "predict" else to_predict(data)


def images_of_folders(roots: list[str]) -> Source:
    """Return the images in folders: a folder with split folders as these splits, any other folder as ``train``.

    Raises:
        ConfigError: If a folder does not exist or is within another one, or there is no image.
    """
    folders = [os.path.abspath(os.path.expanduser(root)) for root in roots]
    _refuse_overlap(folders)
    parts: list[tuple[str, ImageDataset]] = []
    ignored: dict[str, str] = {}
    for folder in folders:
        found, beside = split_folders(folder)
        parts += [(split, FolderImageDataset(path)) for split, path in found.items()]
        ignored |= beside
    parts.sort(key=lambda part: SPLITS.index(part[0]))
    source = _source([image for split, data in parts for image in _images(split, data)], [data for _, data in parts])
    source.ignored = ignored | source.ignored
    if not source.images:
        raise ConfigError(f"--images {' '.join(roots)}: no image found")
    return source


def _refuse_overlap(folders: list[str]) -> None:
    for folder in folders:
        if not os.path.isdir(folder):
            raise ConfigError(f"--images {folder}: no such folder; check needs folders")
    real = sorted(os.path.join(os.path.realpath(folder), "") for folder in folders)
    for outer, inner in pairwise(real):
        if inner.startswith(outer):
            raise ConfigError(f"--images: {inner} is in {outer}, or is the same folder; remove one of them")


def _images(split: str, data: ImageDataset) -> list[CheckedImage]:
    samples = data.samples
    labels = samples["label"] if "label" in samples else [None] * len(samples)
    rows = enumerate(zip(samples["path"], labels, strict=True))
    return [CheckedImage(split, str(path), _label(label), data, row) for row, (path, label) in rows]


def _label(label: Any) -> Label | None:
    if isinstance(label, tuple):
        return tuple(sorted(names_in(label)))
    return None if pd.isna(label) else str(label)


def _source(images: list[CheckedImage], parts: list[ImageDataset]) -> Source:
    excluded = {path: rule for data in parts for path, rule in data.ignored.items()}
    ignored = {path: rule for path, rule in excluded.items() if rule != EMPTY}
    return Source(images, ignored, sorted(excluded.keys() - ignored.keys()))
