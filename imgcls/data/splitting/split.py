"""Which sample belongs to which split, with labels by name."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.data.scan.files import HashKind
from imgcls.data.scan.samples import SampleScan
from imgcls.datasets.dataset import ImageDataset, read_sample
from imgcls.datasets.folder import look_alikes, natural_order
from imgcls.datasets.labels import fault_in, multi_hot, names_in, to_text
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError, ImageError, listed
from imgcls.images import Pixels

log = logging.getLogger(__name__)

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
"""Names of folders that hold the images of a split, and that split."""

Labels = NDArray[np.integer[Any]]
"""``(samples,)`` int64, places in the class list; or, of several labels a sample, ``(samples, classes)`` of 0 and 1."""


class Split:
    """Some rows of a dataset, with their labels as places in the class list, or as 0 and 1 for each class.

    Args:
        data: The dataset.
        labels: Label of each row of the dataset; None where unknown.
        rows: The rows that belong to the split; None for all.
        groups: Group of each row of the dataset: what must stay on one side of a split; None where there are none.
        scan: What is known of the samples; None where nothing is.
        kind: Of what a content hash is.
    """

    def __init__(
        self,
        data: ImageDataset,
        labels: Labels | None,
        rows: NDArray[np.intp] | None = None,
        groups: NDArray[Any] | None = None,
        scan: SampleScan | None = None,
        kind: HashKind = "full",
    ) -> None:
        self.data = data
        self.kind: HashKind = kind
        self._scan = scan or SampleScan()
        self.rows = np.arange(len(data.samples)) if rows is None else rows
        self.label_array: Labels = (np.full(len(data.samples), -1) if labels is None else labels)[self.rows]
        self.groups = None if groups is None else groups[self.rows]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def read(self, place: int) -> Pixels:
        """Return the pixels of the sample at ``place``.

        Raises:
            ImageError: If it cannot be read.
        """
        return read_sample(self.data, int(self.rows[place]))

    def path(self, place: int) -> str:
        """Return the id of the sample at ``place``."""
        path: str = self.data.sample_paths[self.rows[place]]
        return path

    def table(self) -> pd.DataFrame:
        """One row a sample: path, label; several labels as one text."""
        table = self.data.samples[["path", "label"]].iloc[self.rows]
        return table.assign(label=list(map(to_text, table["label"]))) if self.multilabel else table

    @property
    def multilabel(self) -> bool:
        """Whether a sample may have several labels."""
        return self.label_array.ndim == 2

    def classes(self) -> set[int]:
        """Return the places of the classes that occur."""
        found = np.flatnonzero(self.label_array.any(axis=0)) if self.multilabel else self.label_array
        return set(found.tolist())

    def class_counts(self, classes: int) -> list[int]:
        """Return the number of samples of each of so many classes."""
        array = self.label_array
        counts = array.sum(axis=0, dtype=np.int64) if self.multilabel else np.bincount(array, minlength=classes)
        return [int(count) for count in counts]

    def divide(self, held: NDArray[np.intp]) -> dict[str, "Split"]:
        """Return the samples at the places ``held`` as ``validation``, and the others as ``train``."""
        is_held = np.zeros(len(self), dtype=bool)
        is_held[held] = True
        return {"train": self.part(~is_held), "validation": self.part(is_held)}

    def part(self, chosen: NDArray[np.bool_]) -> "Split":
        """Return the chosen samples as a split of their own."""
        part = copy(self)
        for name in {"fingerprints", "label_names"} & vars(self).keys():  # images are not read again
            vars(part)[name] = list(compress(vars(self)[name], chosen))
        part.rows, part.label_array = self.rows[chosen], self.label_array[chosen]
        part.groups = None if self.groups is None else self.groups[chosen]
        return part

    def without(self, rows: list[int]) -> "Split":
        """Return the samples that are not in the given rows of the dataset."""
        return self.part(~np.isin(self.rows, rows)) if rows else self

    def empty(self) -> "Split":
        """Return a split of the same dataset without a sample."""
        return self.part(np.zeros(len(self), dtype=bool))

    @cached_property
    def fingerprints(self) -> list[str]:
        """Content hash of each sample."""
        return self.hashes(self.kind)

    def hashes(self, kind: HashKind) -> list[str]:
        """Return the content hash of each sample, of this kind or of another, such as that of a checkpoint."""
        return self._scan.hashes(self.data, self.rows, kind)

    @cached_property
    def label_names(self) -> list[str]:
        """Class name of each sample; several as one text."""
        # one object a class, so that a checkpoint holds each name once
        return [sys.intern(str(label)) for label in self.table()["label"]]

    def first_readable(self) -> Pixels | None:
        """Return the first image that can be read, None if there is none."""
        for place in range(len(self)):
            try:
                return self.read(place)
            except ImageError:
                continue  # reported when its batch is read
        return None


def class_names_of(data: ImageDataset) -> list[str]:
    """Return the classes of a training set in natural order; those of a stream as it names them.

    Raises:
        ConfigError: If there are fewer than two, one is blank, a sample has none, or they are splits and no classes.
    """
    if isinstance(data, StreamImageDataset):
        return list(data.class_names)
    labels = _labels(data, "train")
    names = sorted(_names_in(labels), key=natural_order)
    splits = {SPLIT_FOLDERS[name.lower()]: name for name in names if name.lower() in SPLIT_FOLDERS}
    if "train" in splits and len(splits) > 1:
        raise ConfigError(
            f"train: {data} holds splits and no classes: {listed(names)}; give each by itself: "
            f"--data.dataset_classes.train {data}/{splits['train']}"
        )
    if blank := [name for name in names if not name.strip()]:
        raise ConfigError(f"train: a class of {data} is called {blank[0]!r}; every class needs a name")
    for group in look_alikes(names):
        log.warning("train: classes that differ only in case, blanks or Unicode form: %s", listed(group))
    if len(names) < 2:
        found = f"one class, {names[0]!r}" if names else "no labelled image"
        needed = "at least two classes" if _are_several(labels) else "one folder of images a class, at least two"
        raise ConfigError(f"train: found {found} in {data}; a classifier needs {needed}")
    return names


def is_multilabel(datasets: Mapping[str, ImageDataset]) -> bool:
    """Whether the samples of datasets may have several labels.

    Args:
        datasets: The labelled datasets by split.

    Raises:
        ConfigError: If those of some may, and those of others not.
    """
    kinds = {
        name: "label" in data.samples and _are_several(data.samples["label"])  # a stream has none here
        for name, data in datasets.items()
    }
    if len(set(kinds.values())) > 1:
        several, one = (", ".join(name for name, kind in kinds.items() if kind == wanted) for wanted in (True, False))
        raise ConfigError(
            f"{several}: several labels an image, but {one}: one label an image; give label_separator to all of them "
            "(imgcls.CsvImageDataset), or to none"
        )
    return any(kinds.values())


def labels_of(data: ImageDataset, class_names: list[str], split: str) -> Labels:
    """Turn the labels of a dataset into places in the class list, by name; several a sample into 0 and 1 a class.

    Raises:
        ConfigError: If there is no sample, or a label is not in the class list.
    """
    labels = _labels(data, split)
    refuse_unknown(_names_in(labels), class_names, split)
    places = {name: place for place, name in enumerate(class_names)}
    if _are_several(labels):
        return multi_hot(list(labels), places)
    return np.array([places[str(label)] for label in labels], dtype=np.int64)


def refuse_unknown(names: Iterable[str], class_names: list[str], split: str) -> None:
    """Refuse classes of a split that the model does not have.

    Raises:
        ConfigError: Names them.
    """
    if unknown := sorted(set(names) - set(class_names), key=natural_order):
        alike = [" and ".join(map(ascii, group)) for group in look_alikes([*unknown, *class_names])]
        hint = f"; {alike[0]} differ only in case, blanks or Unicode form" if alike else ""
        raise ConfigError(
            f"{split}: classes {listed(unknown)} are not among those of the model, {listed(class_names)}{hint}"
        )


def _are_texts(labels: pd.Series) -> bool:
    """Whether all labels are texts; pandas tells that of a million in a moment, a loop takes half a second."""
    return pd.api.types.infer_dtype(labels) == "string"


def _names_in(labels: pd.Series) -> set[str]:
    if _are_texts(labels):
        return set(map(str, labels.unique()))
    return {name for label in labels for name in names_in(label)}


def _are_several(labels: pd.Series) -> bool:
    return not _are_texts(labels) and any(isinstance(label, tuple) for label in labels)


def check_paths(data: ImageDataset, split: str) -> None:
    """Refuse a dataset that has no samples, or whose samples are not told apart by their paths.

    Raises:
        ConfigError: Names what is missing, or the first path that stands there twice.
    """
    _require_column(data, split, "path")
    paths = data.samples["path"]
    if paths.duplicated().any():
        twice = paths[paths.duplicated()].iloc[0]
        raise ConfigError(f"{split}: {data} lists {twice!r} twice; 'path' must be unique")
    refuse_empty(data, split)


def _require_column(data: ImageDataset, split: str, name: str) -> None:
    if name not in data.samples:
        raise ConfigError(f"{split}: the samples of {data} have no column {name!r}")


def _labels(data: ImageDataset, split: str) -> pd.Series:
    samples = data.samples
    _require_column(data, split, "label")
    check_paths(data, split)
    without = samples["label"].isna() | (samples["label"] == "")
    if without.any():
        path = samples["path"][without].iloc[0]
        raise ConfigError(
            f"{split}: {path!r} has no label; put the images into one folder a class, or name the labels' column"
        )
    _check_several(samples, f"{split}: {data}")
    return samples["label"]


def _check_several(samples: pd.DataFrame, where: str) -> None:
    """Refuse labels of a class of one's own that are neither one name nor a tuple of names."""
    labels = samples["label"]
    if _are_texts(labels):
        return
    several = _are_several(labels)
    for path, label in zip(samples["path"], labels, strict=True):
        if several != isinstance(label, tuple) or isinstance(label, (list, set, frozenset, np.ndarray)):
            raise ConfigError(
                f"{where}: the label of {path!r} is {label!r}; give each image a tuple of names, or each one name"
            )
        if several and (fault := fault_in(names_in(label))):
            raise ConfigError(f"{where}: the label of {path!r} holds {fault}: {label!r}")


def refuse_empty(data: ImageDataset, split: str) -> None:
    """Refuse a dataset without samples, and say by which rules its files were left out.

    Raises:
        ConfigError: If there is no sample.
    """
    if data.samples.empty:
        rules = Counter(data.ignored.values())
        left_out = "; ".join(f"{count} left out: {rule}" for rule, count in rules.items())
        raise ConfigError(f"{split}: no image in {data}{f' ({left_out})' if left_out else ''}")
