"""A split: some rows of a dataset, with their labels as class indices."""

import sys
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
from imgcls.datasets.labels import to_text
from imgcls.errors import ImageError
from imgcls.images import Pixels

Labels = NDArray[np.integer[Any]]
"""``(samples,)`` int64, class indices; or, multi-label, ``(samples, classes)`` of 0 and 1."""


class Split:
    """Some rows of a dataset.

    Args:
        data: The dataset.
        labels: Label of each row of the dataset; None if unknown.
        rows: The rows that belong to the split; None for all.
        groups: Group of each row of the dataset, which must stay in one split; None if there are no groups.
        scan: Content hashes and unreadable samples that are known already; None if nothing is.
        kind: How content hashes are computed.
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
        return len(self.rows)

    def read(self, index: int, min_side: int | None = None) -> Pixels:
        """Return the pixels of a sample, uint8, ``(H, W, 3)``, RGB; ``min_side`` as for ``read_sample``.

        Raises:
            ImageError: If it cannot be read.
        """
        return read_sample(self.data, int(self.rows[index]), min_side)

    def path(self, index: int) -> str:
        """Return the id of a sample: the path of a file."""
        path: str = self.data.sample_paths[self.rows[index]]
        return path

    def table(self) -> pd.DataFrame:
        """Return one row per sample with path and label; the labels of a multi-label sample as one text."""
        table = self.data.samples[["path", "label"]].iloc[self.rows]
        return table.assign(label=list(map(to_text, table["label"]))) if self.multilabel else table

    @property
    def multilabel(self) -> bool:
        """Whether the data is multi-label."""
        return self.label_array.ndim == 2

    def classes(self) -> set[int]:
        """Return the indices of the classes that occur."""
        found = np.flatnonzero(self.label_array.any(axis=0)) if self.multilabel else self.label_array
        return set(found.tolist())

    def class_counts(self, classes: int) -> list[int]:
        """Return the number of samples of each of the given number of classes."""
        array = self.label_array
        counts = array.sum(axis=0, dtype=np.int64) if self.multilabel else np.bincount(array, minlength=classes)
        return [int(count) for count in counts]

    def divide(self, held_out: NDArray[np.intp]) -> dict[str, "Split"]:
        """Return the samples at the given indices as ``validation``, and the others as ``train``."""
        is_held_out = np.zeros(len(self), dtype=bool)
        is_held_out[held_out] = True
        return {"train": self.part(~is_held_out), "validation": self.part(is_held_out)}

    def part(self, chosen: NDArray[np.bool_]) -> "Split":
        """Return the chosen samples as another split."""
        part = copy(self)
        for name in {"fingerprints", "label_names"} & vars(self).keys():  # so that images are not read again
            vars(part)[name] = list(compress(vars(self)[name], chosen))
        part.rows, part.label_array = self.rows[chosen], self.label_array[chosen]
        part.groups = None if self.groups is None else self.groups[chosen]
        return part

    def without(self, rows: list[int]) -> "Split":
        """Return the split without the given rows of the dataset."""
        return self.part(~np.isin(self.rows, rows)) if rows else self

    def empty(self) -> "Split":
        """Return a split of the same dataset without samples."""
        return self.part(np.zeros(len(self), dtype=bool))

    @cached_property
    def fingerprints(self) -> list[str]:
        """Content hash of each sample."""
        return self.hashes(self.kind)

    def hashes(self, kind: HashKind) -> list[str]:
        """Return the content hash of each sample, of this or another kind."""
        return self._scan.hashes(self.data, self.rows, kind)

    @cached_property
    def label_names(self) -> list[str]:
        """Class name of each sample; several as one text."""
        # one object per class, so that a checkpoint stores each name once
        return [sys.intern(str(label)) for label in self.table()["label"]]

    def first_readable(self) -> Pixels | None:
        """Return the first image that can be read, None if there is none."""
        for index in range(len(self)):
            try:
                return self.read(index)
            except ImageError:
                continue  # reported when its batch is read
        return None
