"""Predictions as lines of a CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from imgcls.predictions.prediction_rows import Columns, Rows

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class CsvRows:
    """Write predictions as lines of a CSV.

    Text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe, a path with ``./``.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def heading(self, is_first: bool) -> bytes:
        """Return the names of the columns, for the first part of a file."""
        return _as_csv([self._columns.names]) if is_first else b""

    def rows(self, rows: Rows) -> bytes:
        """Return the rows of a batch."""
        count = len(self._columns.of_classes)
        lines = []
        for index, (path, texts, values) in enumerate(zip(rows.paths, rows.texts, self._cells(rows), strict=True)):
            label = [] if rows.labels is None else [_escaped(rows.labels[index], "'")]
            given = [_escaped(path, "./"), *label, _escaped(texts.prediction, "'"), texts.probability]
            label_set = [_escaped(texts.label_set, "'")][: self._columns.has_sets]
            lines.append([*given, *label_set, *([""] * count if texts.error else values), texts.error])
        return _as_csv(lines)

    def _cells(self, rows: Rows) -> list[list[str]]:
        """Return the columns of classes, in the shortest decimal form that reads back as the same float32."""
        if rows.top is None:
            return [[str(value) for value in row] for row in rows.probs]
        names = [_escaped(name, "'") for name in self._columns.class_names]
        pairs = (zip(*row, strict=True) for row in zip(rows.top.indices, rows.top.probs, strict=True))
        return [[text for index, value in row for text in (names[index], str(value))] for row in pairs]


def read_csv(path: Path, count: int) -> list[list[str]]:
    """Return the heading and at most ``count`` rows of a file."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(islice(csv.reader(file), count + 1))


def _as_csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    # file names that are not UTF-8 keep their bytes
    return text.getvalue().encode(errors="surrogateescape")


def _escaped(text: str, prefix: str) -> str:
    return f"{prefix}{text}" if text.startswith(_FORMULA_STARTS) else text
