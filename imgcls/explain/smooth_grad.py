"""SmoothGrad times input: a heat map without a layer, from the gradient at the pixels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from imgcls.models.inference import InferenceModule

SIDE = 14  # rows and columns of the map
_SAMPLES = 16
_NOISE = 0.15  # standard deviation, as a share of the range of the pixels


def smooth_grad(model: InferenceModule, images: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient at the pixels times the pixels, averaged over noisy copies (Smilkov et al. 2017).

    Args:
        model: The classifier, in evaluation mode.
        images: ``(B, 3, H, W)``, uint8 or already normalised.
        weights: What each logit counts ``(B, classes)``.

    Returns:
        ``(B, h, w)``, averages of the absolute values over parts of the picture.
    """
    with torch.no_grad():
        pixels = model.normalize(images).float()
    noise = _NOISE * (pixels.amax() - pixels.amin())
    generator = torch.Generator().manual_seed(0)
    leaf = _Leaf()
    handle = model.built().network.register_forward_pre_hook(leaf, with_kwargs=True)
    total = torch.zeros_like(pixels)
    try:
        for _ in range(_SAMPLES):
            with torch.enable_grad():
                logits = model(pixels + noise * torch.randn(pixels.shape, generator=generator).to(pixels.device))
            [gradient] = torch.autograd.grad((logits * weights).sum(), leaf.pixels)
            total += gradient * leaf.pixels.detach()
    finally:
        handle.remove()
    return adaptive_avg_pool2d(total.sum(1).abs(), (SIDE, SIDE))


class _Leaf:
    """The pixels that a network receives, as the start of the graph."""

    pixels: Tensor

    def __call__(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        torch.set_grad_enabled(True)  # a frozen encoder has switched it off, and restores what was before
        self.pixels = named["pixel_values"].detach().requires_grad_()
        return given, named | {"pixel_values": self.pixels}
