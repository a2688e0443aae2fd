"""Deletion and insertion (Petsiuk et al. 2018): answers while what a map calls important is removed, or added."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SIDE = 14  # rows and columns of what is removed at once
_STEPS = 10


def curves(
    answer: Callable[[Tensor], Tensor], image: NDArray[np.uint8], maps: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the areas under both curves of several maps of one image.

    Args:
        answer: Returns the probability of the explained class ``(B,)`` of uint8 images ``(B, 3, H, W)``.
        image: ``(H, W, 3)``.
        maps: ``(maps, h, w)``.

    Returns:
        ``(maps, 2)``: deletion (the lower, the better) and insertion (the higher, the better), 0 to 1.
    """
    height, width, _ = image.shape
    blurred = cv2.GaussianBlur(image, (0, 0), width / 14)
    shares = np.arange(1, _STEPS) / _STEPS
    pictures = []
    for heat in maps:
        fine = cv2.resize(heat, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
        ranks = np.argsort(np.argsort(-fine, axis=None, kind="stable")).reshape(fine.shape) / fine.size
        whole = cv2.resize(ranks, (width, height), interpolation=cv2.INTER_NEAREST)[..., None]
        pictures += [np.where(whole < share, blurred, image) for share in shares]
        pictures += [np.where(whole < share, image, blurred) for share in shares]
    batch = torch.from_numpy(np.stack([image, blurred, *pictures])).permute(0, 3, 1, 2)
    answers = torch.cat([answer(part) for part in torch.split(batch, 32)]).double().numpy()
    whole_answer, blurred_answer = answers[:2]
    middle = answers[2:].reshape(len(maps), 2, _STEPS - 1)
    ends = np.broadcast_to([[whole_answer, blurred_answer], [blurred_answer, whole_answer]], (len(maps), 2, 2))
    whole_curves = np.concatenate([ends[..., :1], middle, ends[..., 1:]], axis=2)
    return np.asarray(np.trapezoid(whole_curves, dx=1 / _STEPS, axis=2))
