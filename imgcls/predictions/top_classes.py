"""The most probable classes of each image."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from imgcls.errors import ConfigError


class TopClasses(NamedTuple):
    """The most probable classes of each image of a batch, the most probable first.

    Args:
        indices: Their indices, ``(B, K)`` int64.
        probs: Their probabilities, ``(B, K)`` float32.
    """

    indices: NDArray[np.int64]
    probs: NDArray[np.floating]


def top_classes(probs: Tensor, count: int) -> TopClasses:
    """Return the most probable classes; of equal ones the first, which is the predicted class.

    Args:
        probs: Probabilities ``(B, classes)``, on the CPU.
        count: Number of classes.
    """
    values, indices = probs.sort(dim=1, descending=True, stable=True)
    return TopClasses(indices[:, :count].numpy(), values[:, :count].numpy())


def check_top_k(count: int | None, classes: int, option: str = "--top_k") -> None:
    """Check how many classes are asked for.

    Args:
        count: The number; None for all.
        classes: The number of classes of the model.
        option: The option or argument, for the message.

    Raises:
        ConfigError: If the model has not as many.
    """
    if count is not None and not 1 <= count <= classes:
        raise ConfigError(f"{option} must be between 1 and {classes}, the number of classes, got {count}")
