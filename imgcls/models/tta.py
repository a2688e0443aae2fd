"""Test-time augmentation: an image seen in several ways, and what the model says of them averaged."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Views = Literal["none", "hflip", "flips"]

_MIRROR, _TURN_OVER = (-1,), (-2,)  # axes of (B, 3, H, W)
_FLIPS: dict[Views, list[tuple[int, ...]]] = {
    "none": [],
    "hflip": [_MIRROR],
    "flips": [_MIRROR, _TURN_OVER, _MIRROR + _TURN_OVER],
}


def averaged(model: Callable[[Tensor], Tensor], images: Tensor, views: Views, multilabel: bool = False) -> Tensor:
    """Return logits whose softmax is the mean of the probabilities over all views.

    Args:
        model: Gives logits ``(B, classes)``.
        images: ``(B, 3, H, W)``.
        views: The ways in which the images are seen; as they are is always among them.
        multilabel: Whether the probabilities are those of the sigmoid, one by one.
    """
    logits = model(images)
    if views == "none":
        return logits
    seen = [logits, *(model(images.flip(axes)) for axes in _FLIPS[views])]
    if multilabel:
        yes, no = (torch.stack([logsigmoid(sign * each) for each in seen]).logsumexp(0) for sign in (1, -1))
        return yes - no
    log_probs = torch.stack([torch.log_softmax(each, dim=1) for each in seen])
    return torch.log_softmax(log_probs.logsumexp(0), dim=1)
