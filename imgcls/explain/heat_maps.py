"""Heat maps of a classifier: gradient times activation, at the last layer of its network with a usable spatial grid."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.explain.find_layer import Layer, find_layer
from imgcls.explain.module_output import Leaf, replaced
from imgcls.explain.smooth_grad import smooth_grad
from imgcls.models.inference import InferenceModule

Heat = NDArray[np.float32]

_BATCH = 16  # images whose gradients are computed at once


class HeatMaps:
    """The heat maps of a classifier, for images of its input size.

    For each grid cell of a layer, the gradient of the class's logit times the activation, summed over the channels
    (HiResCAM, Draelos and Carin 2021), averaged with that of the mirror image; negative values are 0. The layer is
    found by measuring, once for each image size. If the rest of the network averages its cells, the products are their
    shares of the logit. Otherwise the mean activation of the image is subtracted first, since what all cells have in
    common says nothing about where. If no layer has a usable grid, the gradient at the pixels is used instead.

    Args:
        model: The classifier, with its weights. Its precision is that of the weights, without autocast.
    """

    def __init__(self, model: InferenceModule) -> None:
        self.model = model
        self._layers: dict[tuple[int, int], Layer | None] = {}

    def layer(self, size: tuple[int, int]) -> Layer | None:
        """Return the layer whose activations are used for images of a height and width; None: the pixels."""
        if size not in self._layers:
            with _ready(self.model):
                self._layers[size] = find_layer(self.model.built().network, self.model, size, self.model.device)
        return self._layers[size]

    def explain(self, images: Tensor, targets: Sequence[int], against: Sequence[int | None] | None = None) -> Heat:
        """Return what speaks for a class in each image.

        Args:
            images: ``(B, 3, H, W)``, uint8 in 0..255 or already normalised, of the size of the network's input.
            targets: The class of each image.
            against: The class of each image that the target is set against: what speaks for the target rather than for
                that class. None, also for single images: the target among all classes.

        Returns:
            ``(B, h, w)`` float32, 0 to 1, of the rows and columns of the layer; 1 is the cell in each image that
            speaks the most for the class. All 0 if nothing does.
        """
        layer = self.layer((images.shape[2], images.shape[3]))
        found = []
        with _ready(self.model):
            images = images.to(self.model.device).clone()  # it may have been made in inference mode
            weights = self._weights(targets, against or [None] * len(targets))
            for part, wanted in zip(torch.split(images, _BATCH), torch.split(weights, _BATCH), strict=True):
                scores = self._scores(layer, part, wanted) + self._scores(layer, part.flip(-1), wanted).flip(-1)
                found.append(scores.clamp(min=0))
        heat = torch.cat(found).double()
        peaks = heat.amax((1, 2), keepdim=True)
        return (heat / torch.where(peaks > 0, peaks, 1)).float().cpu().numpy()

    def _weights(self, targets: Sequence[int], against: Sequence[int | None]) -> Tensor:
        """Return what each logit counts ``(B, classes)``.

        A softmax does not change if a number is added to all logits, so that of a single label the target is set
        against the mean of all classes.
        """
        classes = len(self.model.class_names)
        weights = torch.zeros(len(targets), classes, device=self.model.device)
        for row, (target, other) in enumerate(zip(targets, against, strict=True)):
            if other is not None:
                weights[row, other] = -1
            elif not self.model.multilabel:
                weights[row] = -1 / classes
            weights[row, target] += 1
        return weights

    def _scores(self, layer: Layer | None, images: Tensor, weights: Tensor) -> Tensor:
        """Return the sum over the channels of gradient times activation ``(B, h, w)``."""
        if layer is None:
            return smooth_grad(self.model, images, weights)
        leaf = Leaf()
        module = self.model.built().network.get_submodule(layer.name)
        with torch.enable_grad(), replaced(module, layer.call, leaf):
            logits = self.model(images)
        [gradient] = torch.autograd.grad((logits * weights).sum(), leaf.tensor)
        values, slopes = layer.grid.of(leaf.tensor.detach()), layer.grid.of(gradient)
        if not layer.averaged:
            values = values - values.mean(1, keepdim=True)
        return (values * slopes).sum(2).view(len(images), layer.grid.height, layer.grid.width)


@contextmanager
def _ready(model: InferenceModule) -> Iterator[None]:
    """Put a model into evaluation mode without torch.compile, which does not run hooks, and restore it."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode(False), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
