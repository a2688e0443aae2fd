"""The modules of a classifier that a graph is made of, and the input of its network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from imgcls.config.class_path import Spec
from imgcls.data.transforms.build import build_pipeline
from imgcls.data.transforms.from_checkpoint import KEY
from imgcls.errors import ConfigError, ImageError
from imgcls.export.pixel_graph import PixelGraph
from imgcls.export.pixel_steps import read_steps
from imgcls.images import Pixels, load_image
from imgcls.inference.classifier import Classifier
from imgcls.models.classifier import ImageClassifier

_NORMALIZE = "Normalize"
_AS_TENSOR = "ToTensorV2"


class Network(nn.Module):
    """A network with its normalisation, temperature, and softmax or sigmoid.

    Args:
        model: The classifier, in float32.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.backbone = model.built()
        self.multilabel = model.multilabel
        self.register_buffer("temperature", model.temperature.float().clone())
        self.register_buffer("mean", model.pixel_mean[:, None, None].clone())  # torch.export.save warns of views
        self.register_buffer("std", model.pixel_std[:, None, None].clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities ``(B, classes)`` of images ``(B, 3, H, W)``, uint8, RGB, not normalised."""
        logits = self.backbone((images.float() - self.mean) / self.std) / self.temperature
        return torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, 1)


def single(network: Network) -> nn.Module:
    """Return a network for one image ``(1, 3, H, W)``, whose result are the probabilities ``(classes,)``."""
    return nn.Sequential(network, nn.Flatten(0))


def pixels_of(classifier: Classifier) -> PixelGraph:
    """Return the evaluation transforms of a classifier as a graph.

    Raises:
        ConfigError: Names the transform that has no exact form in a graph.
    """
    return PixelGraph(read_steps(classifier.evaluation_steps), classifier.image_size)


class NetworkInput:
    """The network's input of image files, resized and cropped by the program.

    Args:
        classifier: The classifier.

    Raises:
        ConfigError: If a transform follows ``albumentations.Normalize``, so that the input is not uint8.
    """

    def __init__(self, classifier: Classifier) -> None:
        specs = [spec for spec in classifier.evaluation_steps if _name(spec) != _AS_TENSOR]
        if specs and _name(specs[-1]) == _NORMALIZE:
            specs.pop()
        if _NORMALIZE in map(_name, specs):
            raise ConfigError(f"{KEY}: {_NORMALIZE} must be the last transform, so that the model's input is uint8")
        self._pipeline = build_pipeline(specs, KEY)

    def pixels(self, path: str) -> Pixels:
        """Return the input of one image, uint8, ``(height, width, 3)``, RGB.

        Raises:
            ImageError: If the file cannot be read.
        """
        return np.asarray(self._pipeline(load_image(path), 0), dtype=np.uint8)

    def write(self, paths: Sequence[str], folder: Path) -> list[str]:
        """Write a PNG for each image to a folder, and return their paths; a file that cannot be read keeps its own."""
        written = []
        for number, path in enumerate(paths):
            file = folder / f"{number:06d}.png"
            try:
                Image.fromarray(self.pixels(path)).save(file)
            except ImageError:
                file = Path(path)
            written.append(str(file))
        return written


def _name(spec: Spec) -> str:
    return str(spec["class_path"]).rpartition(".")[2]
