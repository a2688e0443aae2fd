"""The images of the report: the worst mistakes, and examples of each cell of the confusion matrix."""

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.checkpoints.run_folder import THUMBNAILS
from imgcls.errors import ConfigError, first_line
from imgcls.report.confusion import FULL, PAIRS, confused_pairs, confusion
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import read_table

GALLERY = 30
"""Wrong predictions that are shown."""
_MOST = 96  # thumbnails
_EXAMPLES = 5  # images that are listed for a cell of the confusion matrix
_BYTES = 1_100_000  # of all thumbnails in the page, before base64


@dataclass(frozen=True)
class Example:
    """An image of the report."""

    row: int  # among the images with a prediction
    path: str
    name: str  # of its file; after its folder if another evaluated image has the same
    truth: str
    prediction: str
    confidence: float  # probability of the prediction
    of_truth: float  # probability of the true class; multi-label: of what is true of the class that is most wrong


@dataclass(frozen=True)
class Cell:
    """Some images of a cell of the confusion matrix."""

    ident: str  # the anchor, such as c-3-7; multi-label c-3-fn or c-3-fp
    title: str  # true class and prediction
    images: int
    examples: list[Example]  # the most confident predictions, of right ones the least confident


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as data URLs, and its number in the page."""

    number: int
    source: str
    heat_map: str  # the same with the parts that speak for the prediction; "" if there is none


class Examples:
    """The images of a split as examples.

    Args:
        found: The evaluated images.
    """

    def __init__(self, found: EvaluatedSplit) -> None:
        self.found = found
        self._files = Counter(_last(path) for path in found.paths)
        if found.multilabel:
            self.of_truth = np.where(found.labels, found.probs, 1 - found.probs).min(axis=1, initial=1.0)
        else:
            self.of_truth = found.probs[np.arange(len(found)), found.labels]

    def worst(self) -> NDArray[np.intp]:
        """Return the images with a wrong prediction, those first whose truth has the lowest probability."""
        wrong = np.flatnonzero(~self.found.correct)
        return wrong[np.argsort(self.of_truth[wrong], kind="stable")]

    def of(self, indices: Iterable[int]) -> list[Example]:
        """Return images by their index."""
        return [self._example(int(index)) for index in indices]

    def cells(self) -> list[Cell]:
        """Return the cells with images; of many classes those of the most confused pairs."""
        found = self.found
        if found.multilabel:
            return self._multilabel_cells()
        matrix = confusion(found)
        if len(matrix) <= FULL:
            wanted = list(zip(*np.nonzero(matrix), strict=True))
        else:
            wanted = [(pair.true, pair.predicted) for pair in confused_pairs(matrix)[:PAIRS]]
        order = np.argsort(-found.confidence, kind="stable")
        groups = pd.Series(order).groupby([found.labels[order], found.predicted[order]]).indices
        return [self._cell(row, column, order[groups[row, column]]) for row, column in wanted]

    def _cell(self, row: int, column: int, indices: NDArray[np.intp]) -> Cell:
        names = self.found.class_names
        title = f"{names[row]}, predicted as {names[column]}" if row != column else f"{names[row]}, predicted correctly"
        chosen = indices if row != column else indices[::-1]  # of right predictions the least confident ones
        return Cell(f"c-{row}-{column}", title, len(indices), self.of(chosen[:_EXAMPLES]))

    def _multilabel_cells(self) -> list[Cell]:
        found, cells = self.found, []
        kinds = (
            ("fn", "false negatives", found.labels & ~found.predicted),
            ("fp", "false positives", found.predicted & ~found.labels),
        )
        for index, name in enumerate(found.class_names):
            for kind, what, array in kinds:
                rows = np.flatnonzero(array[:, index])
                rows = rows[np.argsort(-np.abs(found.labels[rows, index] - found.probs[rows, index]), kind="stable")]
                if len(rows):
                    examples = self.of(rows[:_EXAMPLES])
                    cells.append(Cell(f"c-{index}-{kind}", f"{name}, {what}", len(rows), examples))
        return cells

    def _example(self, index: int) -> Example:
        found, path = self.found, self.found.paths[index]
        return Example(
            index,
            path,
            _last(path, 1 if self._files[_last(path)] == 1 else 2),
            self._names(found.labels[index]),
            self._names(found.predicted[index]),
            float(found.confidence[index]),
            float(self.of_truth[index]),
        )

    def _names(self, value: NDArray[np.generic]) -> str:
        names = self.found.class_names
        if not self.found.multilabel:
            return names[int(value)]
        return ", ".join(names[index] for index in np.flatnonzero(value)) or "none"


def _last(path: str, parts: int = 1) -> str:
    """Return the last parts of a path."""
    return "/".join(path.split("/")[-parts:])


def choose(found: EvaluatedSplit, others: list[str]) -> list[str]:
    """Return the paths of the images whose thumbnails a report should have.

    Args:
        found: The evaluated images.
        others: Further paths, such as those of the advice; they may be of other splits.
    """
    examples = Examples(found)
    worst = [found.paths[index] for index in examples.worst()[: _MOST // 2]]
    cells = sorted(examples.cells(), key=lambda cell: -cell.images)
    by_rank = [cell.examples[rank].path for rank in range(_EXAMPLES) for cell in cells if rank < len(cell.examples)]
    return list(dict.fromkeys([*worst[: _MOST // 4], *others[: _MOST // 4], *worst, *by_rank]))[:_MOST]


def read_thumbnails(folder: Path) -> tuple[dict[str, Thumbnail], int]:
    """Return path -> thumbnail, as many as fit into the page, and how many the run folder has.

    Args:
        folder: The folder with ``thumbnails.csv``, whose ``file`` and ``heat_map`` are relative to it; the latter may
            be empty. Without the table there are none.

    Raises:
        ConfigError: If the table or a picture cannot be read.
    """
    table, columns = folder / THUMBNAILS, ["path", "file", "heat_map"]
    rows = read_table(table, columns, dtype=object, keep_default_na=False)
    if rows is None:
        return {}, 0
    found: dict[str, Thumbnail] = {}
    size = 0
    for number, (path, *files) in enumerate(rows[columns].itertuples(index=False)):
        try:
            pictures = [(folder / file).read_bytes() if file else b"" for file in files]
        except (OSError, ValueError) as error:
            raise ConfigError(f"{table}: a picture cannot be read ({first_line(error)}); remove it") from error
        size += sum(map(len, pictures))
        if size > _BYTES:
            break
        found[path] = Thumbnail(number, *map(_data_url, pictures))
    return found, len(rows)


def _data_url(picture: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture).decode() if picture else ""
