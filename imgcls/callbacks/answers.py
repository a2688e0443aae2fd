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
    texts = _of_best(probs, class_names) if thresholds is None else _above(probs, class_names, thresholds)
    return [
        Answer("", "", reason) if reason else Answer(*text, "") for text, reason in zip(texts, reasons, strict=True)
    ]


def _of_best(probs: Tensor, class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the most probable class of each image, and its probability, as texts."""
    best = probs.argmax(dim=1)
    values = probs.gather(1, best[:, None])[:, 0].numpy()
    return [(class_names[index], str(value)) for index, value in zip(best.tolist(), values, strict=True)]


def _above(probs: Tensor, class_names: Sequence[str], thresholds: Sequence[float]) -> list[tuple[str, str]]:
    """Return the classes of each image above their thresholds, and their probabilities, as texts."""
    found = []
    for row, above in zip(probs.numpy(), probs > torch.tensor(thresholds), strict=True):
        named = sorted((class_names[index], str(row[index])) for index in above.nonzero().flatten().tolist())
        found.append((to_text(tuple(name for name, _ in named)), SEPARATOR.join(prob for _, prob in named)))
    return found
