"""Which images are looked at: those of the configuration, or those below folders."""

import logging
import os
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pandas as pd

from imgcls.data.datamodule import ImageDataModule
from imgcls.data.splitting.split import SPLIT_FOLDERS, refuse_empty
from imgcls.datasets.dataset import ImageDataset, read_sample
from imgcls.datasets.folder import EMPTY, FolderImageDataset, to_predict
from imgcls.datasets.labels import Label, names_in
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError
from imgcls.images import Pixels

log = logging.getLogger(__name__)

LABELLED = ("train", "validation", "test")  # what a label, and a copy elsewhere, matters in
SPLITS = (*LABELLED, "predict")


class Item(NamedTuple):
    """One image: its split, the id and label that its dataset gives it (several labels sorted), where to read it."""

    split: str
    path: str
    label: Label | None
    data: ImageDataset
    row: int

    def read(self) -> Pixels:
        """Return the pixels; an ImageError says why there are none."""
        return read_sample(self.data, self.row)


@dataclass
class Source:
    """The images of a data set, and what it left out.

    Args:
        items: All images, split by split.
        ignored: Files that are no images by a stated rule: path -> rule.
        empty: Class folders without an image.
    """

    items: list[Item]
    ignored: dict[str, str]
    empty: list[str]


def of_configuration(data: ImageDataModule) -> Source:
    """Return the images that ``dataset_classes`` names; what fit would hold out of ``train`` counts as train.

    Raises:
        ConfigError: If it names none.
    """
    given = {split: _shown(split, data.datasets[split]) for split in SPLITS}
    used = [(split, found) for split, found in given.items() if found is not None]
    if not used:
        raise ConfigError(
            "check: no data: type --images FOLDER, --config FILE.yaml or --data.dataset_classes.train FOLDER"
        )
    for split, found in used:
        refuse_empty(found, split)
    items = [item for split, found in used for item in _items(split, found)]
    return _source(items, [found for _, found in used])


def _shown(split: str, data: ImageDataset | None) -> ImageDataset | None:
    """The images that a command would read; None of a stream, which cannot be looked at as a whole."""
    if isinstance(data, StreamImageDataset):
        log.info("%s: a stream, which is not looked at", split)
        return None
    return data if data is None or split != "predict" else to_predict(data)


def of_folders(roots: list[str]) -> Source:
    """Return the images below folders: a folder of split folders as these splits, any other one as ``train``.

    Raises:
        ConfigError: If there is no such folder, one lies in another, or there is no image.
    """
    folders = [os.path.abspath(os.path.expanduser(root)) for root in roots]
    _refuse_overlap(folders)
    parts: list[tuple[str, ImageDataset]] = []
    ignored: dict[str, str] = {}
    for folder in folders:
        found, beside = _split_folders(folder)
        parts += [(split, FolderImageDataset(path)) for split, path in found.items()]
        ignored |= beside
    parts.sort(key=lambda part: SPLITS.index(part[0]))
    source = _source([item for split, data in parts for item in _items(split, data)], [data for _, data in parts])
    source.ignored = ignored | source.ignored
    if not source.items:
        raise ConfigError(f"--images {' '.join(roots)}: there is no image below")
    return source


def _refuse_overlap(folders: list[str]) -> None:
    for folder in folders:
        if not os.path.isdir(folder):
            raise ConfigError(f"--images {folder}: no such folder; check looks at folders")
    real = sorted(os.path.join(os.path.realpath(folder), "") for folder in folders)
    for outer, inner in pairwise(real):
        if inner.startswith(outer):
            raise ConfigError(f"--images: {inner} lies in {outer}, or is the same; leave out one of them")


def _split_folders(root: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the folder of each split, and what lies beside them; a folder without a ``train`` in it is ``train``."""
    found: dict[str, list[str]] = defaultdict(list)
    beside: dict[str, str] = {}
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"--images {root}: {error.strerror}") from error
    for entry in entries:
        if os.path.isdir(entry.path) and entry.name.lower() in SPLIT_FOLDERS:
            found[SPLIT_FOLDERS[entry.name.lower()]].append(entry.path)
        else:
            beside[entry.path] = "hidden" if entry.name.startswith(".") else "beside the folders of the splits"
    if "train" not in found or len(found) == 1:
        return {"train": root}, {}
    for split, paths in found.items():
        if len(paths) > 1:
            raise ConfigError(
                f"--images {root}: {' and '.join(map(os.path.basename, paths))} are both {split}; keep one"
            )
    return {split: path for split, [path] in found.items()}, beside


def _items(split: str, data: ImageDataset) -> list[Item]:
    samples = data.samples
    labels = samples["label"] if "label" in samples else [None] * len(samples)
    rows = enumerate(zip(samples["path"], labels, strict=True))
    return [Item(split, str(path), _label(label), data, row) for row, (path, label) in rows]


def _label(label: Any) -> Label | None:
    if isinstance(label, tuple):
        return tuple(sorted(names_in(label)))
    return None if pd.isna(label) else str(label)


def _source(items: list[Item], parts: list[ImageDataset]) -> Source:
    left_out = {path: rule for data in parts for path, rule in data.ignored.items()}
    ignored = {path: rule for path, rule in left_out.items() if rule != EMPTY}
    return Source(items, ignored, sorted(left_out.keys() - ignored.keys()))
