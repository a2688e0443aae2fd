"""Images that a CSV lists, with every row accounted for."""

import codecs
import csv as csv_format
import logging
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pandas as pd

from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.labels import Label, read_names
from imgcls.errors import ConfigError, did_you_mean, listed
from imgcls.images import MAX_PIXELS
from imgcls.runtime.atomic_files import is_utf8

log = logging.getLogger(__name__)

_LABEL = "label"
_SEPARATORS = ";|"  # of labels, as people write them
_UTF_16 = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
_MOST = 10  # bad rows that a message names


class CsvImageDataset(ImageDataset):
    """Image files that a CSV lists, one row each, with their labels.

    Every value is text as it stands there: ``0001``, ``nan`` and ``NA`` stay so. A row that cannot be used ends the run
    and is named by its number as a spreadsheet counts; none is left out. Columns that no argument names are kept in
    ``samples``, except one called path or label and, beside a ``group_column``, one called group.

    Args:
        csv: The file: a head with the names of the columns, UTF-8, values between commas.
        path_column: The column of paths, relative to the folder of the CSV.
        label_column: The column of class names; null, or a CSV without the column ``label``, is unlabelled.
        split: Take the rows with this value in ``split_column``; null takes all.
        split_column: The column that says which split a row belongs to.
        group_column: The column of what must stay on one side of a split, such as a patient's id.
        root: The folder that paths are relative to; null is that of the CSV.
        max_pixels: The largest width x height that is decoded; larger images are refused.
        separator: What stands between values; some spreadsheets write ";".
        label_separator: What stands between class names where an image may have several, such as ";" in ``cat;dog``; an
            empty cell is an image of no class. Blanks around names do not count; a JSON list of names is read, too.
            Null: one class an image.
    """

    def __init__(
        self,
        csv: str,
        path_column: str = "path",
        label_column: str | None = _LABEL,
        split: str | None = None,
        split_column: str = "split",
        group_column: str | None = None,
        root: str | None = None,
        max_pixels: int = MAX_PIXELS,
        separator: str = ",",
        label_separator: str | None = None,
    ) -> None:
        self.csv = os.path.expanduser(csv)
        self.path_column = path_column
        self.label_column = label_column
        self.split = split
        self.split_column = split_column
        self.group_column = group_column
        self.root = os.path.dirname(self.csv) if root is None else os.path.expanduser(root)
        self.max_pixels = max_pixels
        self.separator = separator
        self.label_separator = label_separator
        if label_separator == "":
            raise ConfigError(f"{self.csv}: label_separator is empty; give the text between names, such as ';'")
        if label_separator is not None and label_column is None:
            raise ConfigError(f"{self.csv}: label_separator: {label_separator!r}, but label_column is null")

    def __str__(self) -> str:
        """Return the path of the CSV."""
        return self.csv

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a row of the CSV: path, label, group where there is a group column, and the columns left.

        With a ``label_separator``, a label is a sorted tuple of names.
        """
        table = self._taken(read_table(self.csv, self.separator))
        self._require(table, self.path_column)
        labels = self._labels(table)
        paths = [os.path.join(self.root, path) for path in table[self.path_column]]
        _refuse(self.csv, list(self._faults(table, paths, labels)), self._advice)
        columns: dict[str, list[Any]] = {"path": paths, "label": self._as_labels(labels or [None] * len(paths))}
        if self.group_column is not None:
            self._require(table, self.group_column)
            columns["group"] = list(table[self.group_column])
        used = {*columns, self.path_column, self.label_column}
        columns |= {name: list(table[name]) for name in table.columns if name not in used}
        return pd.DataFrame(columns, dtype=object)

    @property
    def _advice(self) -> str:
        return f"paths are relative to {self.root or 'the working directory'}; 'root' names another folder"

    def _taken(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the split."""
        if self.split is None:
            if self.split_column in table and table[self.split_column].nunique() > 1:
                log.info("%s: all rows are taken, whatever their %r; 'split' names one", self.csv, self.split_column)
            return table
        self._require(table, self.split_column)
        column = table[self.split_column]
        _refuse(self.csv, [f"row {row}: no {self.split_column}" for row, value in column.items() if not value.strip()])
        alike = [value for value in column.unique() if value.strip().casefold() == self.split.strip().casefold()]
        if len(alike) > 1:
            raise ConfigError(
                f"{self.csv}: {self.split_column} has {listed(sorted(alike))}, which differ only in case or blanks; "
                "make them one"
            )
        taken = table[column == self.split]
        if taken.empty:
            values = listed(sorted(set(column))) or "no row at all"
            raise ConfigError(f"{self.csv}: no row with {self.split!r} in the column {self.split_column!r}: {values}")
        return taken

    def _labels(self, table: pd.DataFrame) -> list[str] | None:
        if self.label_column == _LABEL and _LABEL not in table:
            log.info("%s: no column 'label', so the images have none; it has %s", self.csv, _columns(table))
            return None
        if self.label_column is None:
            return None
        self._require(table, self.label_column)
        labels = list(table[self.label_column])
        if self.label_separator is None:
            self._doubt(labels)
        return labels

    def _doubt(self, labels: list[str]) -> None:
        """Say where class names look like several labels."""
        for mark in _SEPARATORS:
            if looks := next((label for label in labels if mark in label), None):
                log.warning(
                    "%s: %r is taken for one class; with label_separator: %r it is several", self.csv, looks, mark
                )
                return

    def _as_labels(self, cells: list[str] | list[None]) -> list[Label | None]:
        separator = self.label_separator
        return [cell if cell is None or separator is None else read_names(cell, separator) for cell in cells]

    def _fault_of_label(self, cell: str) -> str:
        """Return what is wrong with a cell of labels, empty if nothing is."""
        if not is_utf8(cell):
            return f"the label {cell!r} is no UTF-8 (save the table as UTF-8)"
        if self.label_separator is None:
            return "" if cell.strip() else "no label"
        try:
            read_names(cell, self.label_separator)
        except ValueError as error:
            return str(error)
        return ""

    def _faults(self, table: pd.DataFrame, paths: list[str], labels: list[str] | None) -> Iterator[str]:
        """Yield what is wrong with rows."""
        first: dict[str, int] = {}
        given_paths = list(table[self.path_column])
        for place, row in enumerate(map(int, table.index)):
            given = given_paths[place]
            if not given.strip():
                yield f"row {row}: no path"
            elif (other := first.setdefault(os.path.normpath(paths[place]), row)) != row:
                yield f"row {row}: {given!r} stands in row {other}, too"
            elif not os.path.lexists(paths[place]):
                yield f"row {row}: no file {given!r}"
            if labels is not None and (fault := self._fault_of_label(labels[place])):
                yield f"row {row}: {fault}"

    def _require(self, table: pd.DataFrame, column: str) -> None:
        if column not in table:
            hint = did_you_mean(column, table.columns)
            raise ConfigError(f"{self.csv}: has no column {column!r}; it has {_columns(table)}{hint}")


def read_table(path: str, separator: str = ",") -> pd.DataFrame:
    """Read a CSV as text.

    A value that is missing at the end of a row is empty; a column without a name and an empty line are left out.

    Returns:
        The rows; the index counts them as a spreadsheet does, the head being row 1.

    Raises:
        ConfigError: If the file cannot be read, the head names a column twice, or a row has more values than the head.
    """
    head, *lines = _read_lines(path, separator) or [[]]
    rows = {number: line for number, line in enumerate(lines, 2) if line}
    if twice := [name for place, name in enumerate(head) if name and name in head[:place]]:
        raise ConfigError(f"{path}: the head names the column {twice[0]!r} twice")
    long = [number for number, row in rows.items() if any(row[len(head) :])]
    _refuse(path, [f"row {number}: more values than the head has names" for number in long])
    named = {name: place for place, name in enumerate(head) if name}
    columns = {name: ["".join(row[place : place + 1]) for row in rows.values()] for name, place in named.items()}
    return pd.DataFrame(columns, index=list(rows), dtype=object)


def _read_lines(path: str, separator: str) -> list[list[str]]:
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path}: is not a regular file")
    try:
        with open(path, "rb") as start:
            if start.read(2) in _UTF_16:
                raise ValueError("is UTF-16; save the table as UTF-8")
        # names of files may be no UTF-8
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv_format.reader(file, delimiter=separator, strict=True))
    except (csv_format.Error, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _refuse(path: str, faults: list[str], advice: str = "") -> None:
    if faults:
        more = f"; and {len(faults) - _MOST} more" if len(faults) > _MOST else ""
        named = "; ".join(faults[:_MOST])
        raise ConfigError(f"{path}: {named}{more}{f' ({advice})' if advice else ''}")


def _columns(table: pd.DataFrame) -> str:
    return ", ".join(map(repr, table.columns)) or "none"
