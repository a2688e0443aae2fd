"""The scores of each class."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.datasets.labels import read_names
from imgcls.report.confusion import confusion
from imgcls.results.predictions import EvaluatedSplit
from imgcls.statistics.intervals import Interval, proportion


@dataclass(frozen=True)
class ClassRow:
    """The scores of a class, of AUROC and average precision against the rest; None where they are undefined."""

    index: int
    name: str
    support: int  # images of the class
    predicted: int  # images that are predicted as it
    right: int  # images of both
    precision: float | None
    recall: float | None
    f1_score: float | None
    precision_interval: Interval | None  # 95 %
    recall_interval: Interval | None
    auroc: float | None
    average_precision: float | None


def class_rows(found: EvaluatedSplit, areas: Sequence[tuple[float | None, float | None]]) -> list[ClassRow]:
    """Return the scores of each class.

    Args:
        found: The evaluated images.
        areas: AUROC and average precision of each class.
    """
    columns = (found.class_names, *(each.tolist() for each in counts_by_class(found)), areas)
    return [
        ClassRow(
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
        for index, (name, support, predicted, right, area) in enumerate(zip(*columns, strict=True))
    ]


def images_by_class(labels: Iterable[str], found: EvaluatedSplit) -> dict[str, int]:
    """Return the number of images of each class, of labels as ``splits.csv`` has them."""
    names: Counter[str] = Counter()
    for text, count in Counter(labels).items():
        names.update(dict.fromkeys(read_names(text) if found.multilabel else (text,), count))
    return {name: names[name] for name in found.class_names}


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
