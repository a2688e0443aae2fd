"""The predicted class or classes of each image, as predictions.csv and the Python API give them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imgcls.datasets.labels import SEPARATOR, to_text

_NOT_FINITE = "the model's outputs are not finite"


class Answer(NamedTuple):
    """What is predicted for an image.

    Args:
        prediction: The predicted class; multi-label: the classes whose probability exceeds their threshold, sorted, as
            ``cat;dog`` (as a JSON list if a name contains ``;``), which may be empty.
        probability: Its probability, in the shortest decimal form that reads back as the same float32; multi-label:
            the probabilities of the classes in the same order.
        error: The reason why there is no prediction, and the others are empty; else "".
    """

    prediction: str
    probability: str
    error: str


def answers(
    probs: Tensor, errors: Sequence[str], class_names: Sequence[str], thresholds: Sequence[float] | None
) -> list[Answer]:
    """Return what is predicted for each image of a batch.

    Args:
        probs: Probabilities ``(B, classes)``, float32; NaN for an image that could not be read.
        errors: The reason why an image could not be read, else "", for each image.
        class_names: Names of the classes.
        thresholds: Multi-label: the threshold of each class; None for single-label models.
    """
    probs = probs.cpu()
    finite = probs.isfinite().all(dim=1).tolist()
    reasons = [error or ("" if fine else _NOT_FINITE) for error, fine in zip(errors, finite, strict=True)]
    if thresholds is None:
        predicted = [[index] for index in probs.argmax(dim=1).tolist()]
    else:
        predicted = [row.nonzero().flatten().tolist() for row in probs > torch.tensor(thresholds)]
    found = []
    for row, classes, reason in zip(probs.numpy(), predicted, reasons, strict=True):
        named = sorted((class_names[index], str(row[index])) for index in classes)
        names = tuple(name for name, _ in named)
        text = to_text(names[0] if thresholds is None else names)
        probability = SEPARATOR.join(prob for _, prob in named)
        found.append(Answer("", "", reason) if reason else Answer(text, probability, ""))
    return found
