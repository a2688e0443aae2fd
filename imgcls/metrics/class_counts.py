"""ClassCounts: true, predicted and confused images of each class, from which precision, recall and F1 follow."""

from collections import Counter
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class ClassScores(NamedTuple):
    """The scores of a class; None where they are undefined.

    Args:
        name: The class.
        precision: Share of the predictions of the class that are right; None if there is none.
        recall: Share of its images that are found; None if there is none.
        f1_score: Their harmonic mean; None if the class has neither images nor predictions.
        support: Number of its images.
    """

    name: str
    precision: float | None
    recall: float | None
    f1_score: float | None
    support: int


class Confusion(NamedTuple):
    """Images of one class that are predicted as another.

    Args:
        true: Their class.
        predicted: The predicted class.
        images: Their number.
        support: Number of images of their class.
    """

    true: str
    predicted: str
    images: int
    support: int


class ClassCounts:
    """Counts of an evaluation, added batch by batch; memory grows with the confused pairs, not with the images."""

    def __init__(self, class_names: list[str]) -> None:
        self.class_names = class_names
        self.images = 0
        self.correct, self.predicted, self.true = np.zeros((3, len(class_names)), dtype=np.int64)
        self.confused: Counter[tuple[int, int]] = Counter()

    def add(self, labels: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]) -> None:
        """Count the images of a batch.

        Args:
            labels: ``(B,)`` class indices; multi-label ``(B, classes)`` of 0 and 1.
            predicted: Predictions in the same form.
        """
        self.images += len(labels)
        if labels.ndim == 2:
            self.correct += (labels & predicted).sum(axis=0)
            self.predicted += predicted.sum(axis=0)
            self.true += labels.sum(axis=0)
            return
        count = len(self.class_names)
        wrong = labels != predicted
        self.correct += np.bincount(labels[~wrong], minlength=count)
        self.predicted += np.bincount(predicted, minlength=count)
        self.true += np.bincount(labels, minlength=count)
        self.confused.update(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))

    def merge(self, other: Self) -> None:
        """Add the counts of another process."""
        self.images += other.images
        self.correct += other.correct
        self.predicted += other.predicted
        self.true += other.true
        self.confused.update(other.confused)

    def scores(self) -> list[ClassScores]:
        """Return the scores of each class."""
        counts = zip(self.class_names, self.correct.tolist(), self.predicted.tolist(), self.true.tolist(), strict=True)
        return [
            ClassScores(
                name,
                correct / predicted if predicted else None,
                correct / true if true else None,
                2 * correct / (predicted + true) if predicted + true else None,
                true,
            )
            for name, correct, predicted, true in counts
        ]

    def most_confused(self, most: int | None = None) -> list[Confusion]:
        """Return the pairs of classes with the most confused images, or all; none for multi-label data."""
        ranked = sorted(self.confused.items(), key=lambda item: (-item[1], item[0]))[:most]
        names = self.class_names
        return [Confusion(names[true], names[other], count, int(self.true[true])) for (true, other), count in ranked]
