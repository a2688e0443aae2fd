"""Test-time augmentation: average the predictions for an image and its flips."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

TTA = Literal["none", "hflip", "flips"]

_HORIZONTAL, _VERTICAL = (-1,), (-2,)  # axes of (B, 3, H, W)
_FLIPS: dict[TTA, list[tuple[int, ...]]] = {
    "none": [],
    "hflip": [_HORIZONTAL],
    "flips": [_HORIZONTAL, _VERTICAL, _HORIZONTAL + _VERTICAL],
}


def averaged(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    tta: TTA,
    multilabel: bool = False,
    logits: Tensor | None = None,
) -> Tensor:
    """Return logits whose softmax is the mean of the probabilities of an image and its flips.

    Args:
        model: Returns logits ``(B, classes)``.
        images: ``(B, 3, H, W)``.
        tta: The flips used in addition to the image itself.
        multilabel: Whether the probabilities are sigmoids of the logits.
        logits: Those of the images themselves, if they are known.
    """
    logits = model(images) if logits is None else logits
    if tta == "none":
        return logits
    all_logits = [logits, *(model(images.flip(axes)) for axes in _FLIPS[tta])]
    if multilabel:
        yes, no = (torch.stack([logsigmoid(sign * each) for each in all_logits]).logsumexp(0) for sign in (1, -1))
        return yes - no
    log_probs = torch.stack([torch.log_softmax(each, dim=1) for each in all_logits])
    return torch.log_softmax(log_probs.logsumexp(0), dim=1)
