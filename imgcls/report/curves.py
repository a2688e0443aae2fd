"""Curves of an evaluation: ROC, precision and recall, and accuracy against the share of predictions that are kept."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.results.predictions import EvaluatedSplit

POINTS = 200
"""Points of a drawn curve."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassCurve:
    """The curves of a class against the rest.

    Args:
        index: Of the class.
        auroc: Area under the ROC curve; None if the class has no images, or no other images.
        average_precision: Precision at each score, weighted by the recall that it adds; None without images.
        false_positive_rate: x of the ROC curve, on a common grid.
        recall_at: y of the ROC curve.
        recall: x of the other curve, a grid.
        precision: y of the other curve: the best precision with at least that recall.
    """

    index: int
    auroc: float | None
    average_precision: float | None
    false_positive_rate: Floats
    recall_at: Floats
    recall: Floats
    precision: Floats


def class_curves(found: EvaluatedSplit) -> list[ClassCurve]:
    """Return the curves of each class."""
    return [_curve(index, truth, found.probs[:, index]) for index, truth in enumerate(_truths(found))]


def _truths(found: EvaluatedSplit) -> Iterator[NDArray[np.bool_]]:
    for index in range(found.probs.shape[1]):
        yield found.labels[:, index] if found.multilabel else found.labels == index


def _curve(index: int, truth: NDArray[np.bool_], scores: Floats) -> ClassCurve:
    """Return the curves, whose areas are of all points and not of the drawn ones."""
    grid = np.linspace(0, 1, POINTS + 1)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each group of equal scores
    hits = np.append(0, np.cumsum(truth[order])[ends])
    false = np.append(0, ends + 1) - hits
    recall, rate = hits / max(positives, 1), false / max(negatives, 1)
    precision = hits[1:] / (ends + 1)
    auroc = float(np.trapezoid(recall, rate)) if positives and negatives else None
    area = float((np.diff(recall) * precision).sum()) if positives else None
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall[1:], grid).clip(max=len(best) - 1)
    upper = np.searchsorted(rate, grid, side="right") - 1  # the highest recall at no more than this rate
    return ClassCurve(index, auroc, area, grid, recall[upper], grid, best[at])


def mean_curve(curves: list[ClassCurve]) -> ClassCurve | None:
    """Return the mean of the curves of the classes that have both kinds of images; None if there is none."""
    known = [each for each in curves if each.auroc is not None and each.average_precision is not None]
    if not known:
        return None
    means = [
        np.mean([getattr(each, name) for each in known], axis=0)
        for name in ("false_positive_rate", "recall_at", "recall", "precision")
    ]
    auroc, area = (float(np.mean([getattr(each, name) for each in known])) for name in ("auroc", "average_precision"))
    return ClassCurve(-1, auroc, area, *means)


def summary_curve(found: EvaluatedSplit, curves: list[ClassCurve]) -> ClassCurve | None:
    """Return the curve of the second class if there are two, else the mean; None where all images are of one class."""
    if found.multilabel or len(curves) != 2:
        return mean_curve(curves)
    return None if curves[1].auroc is None else curves[1]


def accuracy_of_most_confident(found: EvaluatedSplit) -> tuple[Floats, Floats]:
    """Return shares of the predictions, the most confident first, and the accuracy of each share."""
    order = np.argsort(-found.confidence, kind="stable")
    right = np.cumsum(found.correct[order])
    counts = np.unique(np.linspace(1, len(found), min(POINTS, len(found))).round().astype(int))
    counts = counts[counts >= min(10, len(found))]  # the accuracy of a few images says nothing
    return counts / len(found), right[counts - 1] / counts
