"""What a checkpoint keeps of the calibration at the end of its fit: the temperature, and scores of the images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.checkpoints.content import Content

CALIBRATION = "calibration"
"""Key of a checkpoint: ``split``, number of ``images``, and the scores of at most 1,600 of them."""
TEMPERATURE = "temperature"
"""Key of the weights."""

MOST_SCORES = 1600  # two float32 and a bool of each: 14.4 kB


def without_calibration(content: Mapping[str, Any]) -> Content:
    """Return a checkpoint as its fit has written it: with the temperature 1, and without scores."""
    kept = {key: value for key, value in content.items() if key != CALIBRATION}
    if TEMPERATURE in kept["state_dict"]:
        kept["state_dict"] = kept["state_dict"] | {TEMPERATURE: torch.tensor(1.0)}
    return kept


def with_calibration(
    content: Content, temperature: NDArray[np.float64], split: str, probs: NDArray[np.float64], labels: NDArray[Any]
) -> Content:
    """Return a checkpoint with a temperature, and of single-label data the scores of the images.

    Args:
        content: The checkpoint.
        temperature: Of shape ``()``, or ``(C,)``.
        split: Name of the split of the images.
        probs: Calibrated probabilities ``(N, C)``.
        labels: ``(N,)`` class indices; multi-label: ``(N, C)``.
    """
    weights = content["state_dict"] | {TEMPERATURE: torch.from_numpy(temperature).float()}
    kept: dict[str, Any] = {"split": split, "images": len(probs)}
    if labels.ndim == 1:
        kept |= _scores(probs, labels)
    return {**content, "state_dict": weights, CALIBRATION: kept}


def _scores(probs: NDArray[np.float64], labels: NDArray[Any]) -> dict[str, Tensor]:
    """Return confidence, correctness and probability of the true class, of images drawn if there are too many."""
    rows = np.flatnonzero(np.isfinite(probs).all(axis=1))
    if len(rows) > MOST_SCORES:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_SCORES, replace=False))
    probs, labels = probs[rows].astype(np.float32), labels[rows]
    return {
        "confidence": torch.from_numpy(probs.max(axis=1)),
        "correct": torch.from_numpy(probs.argmax(axis=1) == labels),
        "of_truth": torch.from_numpy(probs[np.arange(len(probs)), labels]),
    }
