"""Images listed in a CSV."""

import logging
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pandas as pd

from imgcls.datasets.csv_table import columns_in_words, read_table, refuse_rows
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.labels import Label, read_names
from imgcls.errors import ConfigError, did_you_mean, listed
from imgcls.images import MAX_PIXELS
from imgcls.runtime.atomic_files import is_utf8

log = logging.getLogger(__name__)

_LABEL = "label"
_COMMON_SEPARATORS = ";|"  # of class names


class CsvImageDataset(ImageDataset):
    """Image files listed in a CSV, one per row, with their labels.

    All values are text: ``0001``, ``nan`` and ``NA`` are kept as they are. An invalid row is an error that gives its
    row number as in a spreadsheet; no row is skipped. Columns that no argument names are kept in ``samples``, except
    columns called path or label and, if ``group_column`` is given, group.

    Args:
        csv: The file: UTF-8, with a header row.
        path_column: The column of paths, relative to the folder of the CSV.
        label_column: The column of class names; null, or a CSV without the column ``label``, is unlabelled.
        split: Use only the rows with this value in ``split_column``; null uses all rows.
        split_column: The column that names the split of a row.
        group_column: The column whose values stay on one side of a split, for example a patient id.
        root: The folder that paths are relative to; null is the folder of the CSV.
        max_pixels: The largest width x height that is decoded; larger images are refused.
        separator: The separator of values; some spreadsheets write ";".
        label_separator: The separator of class names in a multi-label dataset, for example ";" in ``cat;dog``. An empty
            cell means that no class applies; blanks around names are ignored; a JSON list of names is read as well.
            Null: one class per image.
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
            raise ConfigError(f"{self.csv}: label_separator must not be empty; give the text between names, e.g. ';'")
        if label_separator is not None and label_column is None:
            raise ConfigError(f"{self.csv}: label_separator: {label_separator!r} needs a label_column, got null")

    def __str__(self) -> str:
        return self.csv

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per row of the CSV: path, label, group if there is a group column, and the other columns.

        With a ``label_separator``, a label is a sorted tuple of names.
        """
        table = self._rows_of_split(read_table(self.csv, self.separator))
        self._require(table, self.path_column)
        labels = self._label_cells(table)
        paths = [os.path.join(self.root, path) for path in table[self.path_column]]
        advice = f"paths are relative to {self.root or 'the working directory'}; 'root' sets another folder"
        refuse_rows(self.csv, list(self._faults(table, paths, labels)), advice)
        columns: dict[str, list[Any]] = {"path": paths, "label": self._labels(labels or [None] * len(paths))}
        if self.group_column is not None:
            self._require(table, self.group_column)
            columns["group"] = list(table[self.group_column])
        used = {*columns, self.path_column, self.label_column}
        columns |= {name: list(table[name]) for name in table.columns if name not in used}
        return pd.DataFrame(columns, dtype=object)

    def _rows_of_split(self, table: pd.DataFrame) -> pd.DataFrame:
        name = self.split_column
        if self.split is None:
            if name in table and table[name].nunique() > 1:
                log.info(
                    "%s has a column %r but no split was chosen: using all rows. To use one part: init_args.split: %s",
                    self.csv,
                    name,
                    table[name].iloc[0],
                )
            return table
        self._require(table, name)
        column = table[name]
        refuse_rows(self.csv, [f"row {row}: no {name}" for row, value in column.items() if not value.strip()])
        alike = [value for value in column.unique() if value.strip().casefold() == self.split.strip().casefold()]
        if len(alike) > 1:
            raise ConfigError(
                f"{self.csv}: the column {name!r} has {listed(sorted(alike))}, which differ only in case or blanks; "
                "use one spelling"
            )
        chosen = table[column == self.split]
        if chosen.empty:
            values = listed(sorted(set(column))) or "no row at all"
            raise ConfigError(f"{self.csv}: no row with {self.split!r} in the column {name!r}: {values}")
        return chosen

    def _label_cells(self, table: pd.DataFrame) -> list[str] | None:
        if self.label_column == _LABEL and _LABEL not in table:
            names = columns_in_words(table)
            log.info("%s: no column 'label', so the images are unlabelled; the columns are %s", self.csv, names)
            return None
        if self.label_column is None:
            return None
        self._require(table, self.label_column)
        cells = list(table[self.label_column])
        if self.label_separator is None:
            self._warn_of_separators(cells)
        return cells

    def _warn_of_separators(self, cells: list[str]) -> None:
        for separator in _COMMON_SEPARATORS:
            if example := next((cell for cell in cells if separator in cell), None):
                log.warning(
                    "%s: %r is used as a single class; for a multi-label dataset set label_separator: %r",
                    self.csv,
                    example,
                    separator,
                )
                return

    def _labels(self, cells: list[str] | list[None]) -> list[Label | None]:
        separator = self.label_separator
        return [cell if cell is None or separator is None else read_names(cell, separator) for cell in cells]

    def _label_fault(self, cell: str) -> str:
        """Return what is wrong with a cell of labels, "" if nothing is."""
        if not is_utf8(cell):
            return f"the label {cell!r} is not UTF-8 (save the table as UTF-8)"
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
        cells = list(table[self.path_column])
        for index, row in enumerate(map(int, table.index)):
            if not cells[index].strip():
                yield f"row {row}: no path"
            elif (other := first.setdefault(os.path.normpath(paths[index]), row)) != row:
                yield f"row {row}: {cells[index]!r} is in row {other}, too"
            elif not os.path.lexists(paths[index]):
                yield f"row {row}: no file {cells[index]!r}"
            if labels is not None and (fault := self._label_fault(labels[index])):
                yield f"row {row}: {fault}"

    def _require(self, table: pd.DataFrame, column: str) -> None:
        if column not in table:
            hint = did_you_mean(column, table.columns)
            raise ConfigError(f"{self.csv}: no column {column!r}; the columns are {columns_in_words(table)}{hint}")
