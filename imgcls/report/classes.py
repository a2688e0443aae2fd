"""The scores of each class, and which classes are confused with which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.results.predictions import EvaluatedSplit
from imgcls.statistics.intervals import Interval, proportion

FULL = 30
"""Classes up to which the confusion matrix is a table."""
PAIRS = 25
"""Most confused pairs that are listed for more classes."""


@dataclass(frozen=True)
class ClassRow:
    """The scores of a class; None where they are undefined.

    Args:
        index: Of the class.
        name: Of the class.
        support: Images of the class.
        predicted: Images that are predicted as it.
        right: Images of both.
        precision: Share of its predictions that are right.
        recall: Share of its images that are predicted as it.
        f1_score: Their harmonic mean.
        precision_interval: The 95 % interval.
        recall_interval: The 95 % interval.
        auroc: Area under its ROC curve, against the rest.
        average_precision: Area under its curve of precision and recall.
    """

    index: int
    name: str
    support: int
    predicted: int
    right: int
    precision: float | None
    recall: float | None
    f1_score: float | None
    precision_interval: Interval | None
    recall_interval: Interval | None
    auroc: float | None = None
    average_precision: float | None = None


@dataclass(frozen=True)
class Pair:
    """Images of a class that are predicted as another one.

    Args:
        true: Index of their class.
        predicted: Index of the other one.
        images: Their number.
        share: Of the images of their class.
    """

    true: int
    predicted: int
    images: int
    share: float


def class_rows(found: EvaluatedSplit, areas: Sequence[tuple[float | None, float | None]]) -> list[ClassRow]:
    """Return the scores of each class.

    Args:
        found: The evaluated images.
        areas: AUROC and average precision of each class.
    """
    columns = (found.class_names, *(each.tolist() for each in counts_by_class(found)), areas)
    return [_row(index, *values) for index, values in enumerate(zip(*columns, strict=True))]


def _row(
    index: int, name: str, support: int, predicted: int, right: int, area: tuple[float | None, float | None]
) -> ClassRow:
    return ClassRow(
        index,
        name,
        support,
        predicted,
        right,
        right / predicted if predicted else None,
        right / support if support else None,
        2 * right / (support + predicted) if support + predicted else None,
        proportion(right, predicted) if predicted else None,
        proportion(right, support) if support else None,
        *area,
    )


class CountsByClass(NamedTuple):
    """Images, predictions and right predictions of each class, ``(C,)``."""

    images: NDArray[np.int64]
    predicted: NDArray[np.int64]
    right: NDArray[np.int64]


def counts_by_class(found: EvaluatedSplit) -> CountsByClass:
    """Return the counts of each class."""
    if found.multilabel:
        both = found.labels & found.predicted
        return CountsByClass(found.labels.sum(axis=0), found.predicted.sum(axis=0), both.sum(axis=0))
    matrix = confusion(found)
    return CountsByClass(matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal())


def confusion(found: EvaluatedSplit) -> NDArray[np.int64]:
    """Return the number of images by true class (row) and predicted class (column), of single-label data."""
    classes = len(found.class_names)
    cells = np.bincount(found.labels * classes + found.predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def confused_pairs(matrix: NDArray[np.int64], most: int | None = PAIRS) -> list[Pair]:
    """Return the pairs of classes with the most confused images, at most ``most``."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)][:most]
    rows, columns = np.unravel_index(order, matrix.shape)
    support = matrix.sum(axis=1)
    return [
        Pair(int(row), int(column), int(matrix[row, column]), float(matrix[row, column] / support[row]))
        for row, column in zip(rows, columns, strict=True)
    ]


def clustered(matrix: NDArray[np.int64]) -> list[int]:
    """Return an order of the classes that puts confused ones next to each other.

    Average linkage on the share of images that two classes exchange, with optimal leaf order (Bar-Joseph et al. 2001,
    "Fast optimal leaf ordering for hierarchical clustering").
    """
    from scipy.cluster.hierarchy import leaves_list, linkage  # takes a while
    from scipy.spatial.distance import squareform

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distance = 1 - np.minimum((shares + shares.T) / 2, 1)
    np.fill_diagonal(distance, 0)
    order: list[int] = leaves_list(linkage(squareform(distance), "average", optimal_ordering=True)).tolist()
    return order
