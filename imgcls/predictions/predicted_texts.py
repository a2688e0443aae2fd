"""The predicted classes of each image and their probabilities, as texts of predictions.csv and the Python API."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imgcls.datasets.labels import SEPARATOR, to_text

ABSTAIN = "abstain"
"""The prediction of an image on which the model abstains."""

_NOT_FINITE = "the model's outputs are not finite"


class Selection(NamedTuple):
    """When the model abstains, and what a label set contains; for single-label data.

    Args:
        least: The least probability of a prediction; below it, the model abstains. None: it never abstains.
        in_set: The least probability of a class in a label set, which always has the most probable class; None for no
            sets.
    """

    least: float | None = None
    in_set: float | None = None


class PredictedTexts(NamedTuple):
    """What is predicted for an image.

    Args:
        prediction: The predicted class, or ``abstain``; multi-label: the classes whose probability exceeds their
            threshold, sorted, as ``cat;dog`` (as a JSON list if a name contains ``;``), which may be empty.
        probability: Its probability, in the shortest decimal form that reads back as the same float32; multi-label:
            the probabilities of the classes in the same order.
        error: The reason why there is no prediction, and the others are empty; else "".
        label_set: The label set, written as a multi-label prediction; "" if none is asked for.
    """

    prediction: str
    probability: str
    error: str
    label_set: str = ""


def predicted_texts(
    probs: Tensor,
    errors: Sequence[str],
    class_names: Sequence[str],
    thresholds: Sequence[float] | None,
    selection: Selection = Selection(),  # noqa: B008 - immutable
) -> list[PredictedTexts]:
    """Return what is predicted for each image of a batch.

    Args:
        probs: Probabilities ``(B, classes)``, float32; NaN for an image that could not be read.
        errors: The reason why an image could not be read, else "", for each image.
        class_names: Names of the classes.
        thresholds: Multi-label: the threshold of each class; None for single-label models.
        selection: When to abstain, and what a label set contains; for single-label data.
    """
    probs = probs.cpu()
    finite = probs.isfinite().all(dim=1).tolist()
    reasons = [error or ("" if fine else _NOT_FINITE) for error, fine in zip(errors, finite, strict=True)]
    if thresholds is None:
        texts = _of_best(probs, class_names, selection.least)
    else:
        texts = _above(probs, class_names, thresholds)
    sets = [""] * len(reasons) if selection.in_set is None else _label_sets(probs, class_names, selection.in_set)
    return [
        PredictedTexts("", "", reason) if reason else PredictedTexts(*text, "", label_set)
        for text, label_set, reason in zip(texts, sets, reasons, strict=True)
    ]


def _of_best(probs: Tensor, class_names: Sequence[str], least: float | None) -> list[tuple[str, str]]:
    """Return the most probable class of each image, ``abstain`` below a probability, and the probability, as texts."""
    best = probs.argmax(dim=1)
    values = probs.gather(1, best[:, None])[:, 0].numpy()
    names = [class_names[index] for index in best.tolist()]
    if least is not None:
        names = [name if value >= least else ABSTAIN for name, value in zip(names, values, strict=True)]
    return [(name, str(value)) for name, value in zip(names, values, strict=True)]


def _label_sets(probs: Tensor, class_names: Sequence[str], least: float) -> list[str]:
    """Return the classes of each image with at least a probability, and the most probable one, as texts."""
    inside = (probs >= least) | (probs == probs.max(dim=1, keepdim=True).values)
    return [to_text(tuple(class_names[index] for index in row.nonzero().flatten().tolist())) for row in inside]


def _above(probs: Tensor, class_names: Sequence[str], thresholds: Sequence[float]) -> list[tuple[str, str]]:
    """Return the classes of each image above their thresholds, and their probabilities, as texts."""
    found = []
    for row, above in zip(probs.numpy(), probs > torch.tensor(thresholds), strict=True):
        named = sorted((class_names[index], str(row[index])) for index in above.nonzero().flatten().tolist())
        found.append((to_text(tuple(name for name, _ in named)), SEPARATOR.join(prob for _, prob in named)))
    return found
