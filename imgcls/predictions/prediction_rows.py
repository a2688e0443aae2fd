"""The columns of a table of predictions, and the content of a batch of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from imgcls.errors import ConfigError
from imgcls.predictions.predicted_texts import PredictedTexts


@dataclass(frozen=True)
class Columns:
    """The columns of a table of predictions.

    Args:
        class_names: Names of the model's outputs.
        multilabel: Whether ``prediction`` and ``probability`` may have several values, or none.
        has_labels: Whether the true label follows the path.
        top_k: Number of classes with a column for name and probability; None for a probability of each class.
        has_sets: Whether a label set follows the probability.
    """

    class_names: list[str]
    multilabel: bool
    has_labels: bool = False
    top_k: int | None = None
    has_sets: bool = False

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        texts = ["prediction", "probability", *["set"][: self.has_sets]]
        return ["path", *["label"][: self.has_labels], *texts, *self.of_classes, "error"]

    @property
    def of_classes(self) -> list[str]:
        """The names of the columns with classes and their probabilities."""
        if self.top_k is None:
            return [f"prob_{name}" for name in self.class_names]
        return [name for rank in range(1, self.top_k + 1) for name in (f"top_{rank}", f"top_{rank}_probability")]


class TopClasses(NamedTuple):
    """The most probable classes of each image of a batch, the most probable first.

    Args:
        indices: Their indices, ``(B, K)`` int64.
        probs: Their probabilities, ``(B, K)`` float32.
    """

    indices: NDArray[np.int64]
    probs: NDArray[np.floating]


class Rows(NamedTuple):
    """A batch of rows.

    Args:
        paths: The path of each image.
        labels: The true classes of each image, if the table has labels.
        texts: What is predicted, as texts.
        probs: ``(B, classes)`` float32, the probabilities.
        top: The most probable classes, if the table has them alone.
    """

    paths: Sequence[str]
    labels: Sequence[str] | None
    texts: Sequence[PredictedTexts]
    probs: NDArray[np.floating]
    top: TopClasses | None


def top_classes(probs: Tensor, count: int) -> TopClasses:
    """Return the most probable classes; of equal ones the first, which is the predicted class.

    Args:
        probs: Probabilities ``(B, classes)``, on the CPU.
        count: Number of classes.
    """
    values, indices = probs.sort(dim=1, descending=True, stable=True)
    return TopClasses(indices[:, :count].numpy(), values[:, :count].numpy())


def check_top_k(count: int | None, classes: int, option: str = "--top_k") -> None:
    """Check how many of the model's classes are asked for; None is all.

    Raises:
        ConfigError: If the model has not as many; names the option or argument.
    """
    if count is not None and not 1 <= count <= classes:
        raise ConfigError(f"{option} must be between 1 and {classes}, the number of classes, got {count}")
