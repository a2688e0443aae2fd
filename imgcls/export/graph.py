"""What the formats onnx and torch share: the graph of torch.export, its input, and what a program must know of it."""

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from imgcls.export.card import description
from imgcls.export.formats import ExportOptions, Written
from imgcls.export.graph_modules import Network, NetworkInput, pixels_of, single
from imgcls.export.pixel_steps import is_exact, read_steps
from imgcls.inference.classifier import Classifier
from imgcls.runtime.serialize import versions

_CLASSIFY = "classify.py"  # applies an exported model to files; it is copied beside it

_TOLERANCE = 1e-4  # of a probability: another order of the sums; a fine-tuned EfficientNet-Lite0 reaches 1.3e-5
_INEXACT = 1e-3  # where a few pixels differ by one level
_USAGE = """In this folder, with `pip install {packages}`:

```bash
python classify.py photo.jpg
```

`load_image` and `Model` of classify.py can be copied into a program of your own.{more}"""

_SIZED = " The images must have {} x {} pixels already: the model is exported without its resize and crop."
_IN_GRAPH = (
    "Resize, crop and normalisation are part of the graph. classify.py does the steps before them: orientation, "
    "transparency, conversion to RGB."
)
_ONE_LEVEL = "OpenCV resizes in float32, the graph in float64, so that one pixel in a thousand may differ by one level."
_EXAMPLE = (300, 417)  # height and width of an image that a graph is recorded with


@dataclass(frozen=True)
class GraphInput:
    """The input of a graph, uint8.

    Args:
        name: Its name.
        shape: Its shape, with a name for each axis of any length.
        example: A tensor of that shape.
    """

    name: str
    shape: tuple[int | str, ...]
    example: torch.Tensor

    @property
    def is_image(self) -> bool:
        """Whether it is an image of any size."""
        return len(self.shape) == 3

    @property
    def axes(self) -> dict[int, str]:
        """Axes of any length -> their names."""
        return {axis: length for axis, length in enumerate(self.shape) if isinstance(length, str)}

    def about(self) -> dict[str, Any]:
        """Return the input as export.json describes it."""
        return {"name": self.name, "dtype": "uint8", "shape": list(self.shape), "colours": "RGB"}


def network_input(classifier: Classifier, batch: int | None = None) -> GraphInput:
    """Return the input of a graph that takes images of the network's size.

    Args:
        classifier: The classifier.
        batch: Number of images; None for any.
    """
    size = classifier.image_size
    return GraphInput("images", (batch or "batch", 3, *size), torch.zeros(batch or 2, 3, *size, dtype=torch.uint8))


def image_input() -> GraphInput:
    """Return the input of a graph that takes an image of any size."""
    return GraphInput("image", ("height", "width", 3), torch.zeros(*_EXAMPLE, 3, dtype=torch.uint8))


def export_program(module: nn.Module, given: GraphInput) -> ExportedProgram:
    """Record the operations of a module.

    Args:
        module: Returns probabilities.
        given: Its input.
    """
    shapes = (dict.fromkeys(given.axes, Dim.DYNAMIC),)
    with quiet(), torch.no_grad():
        return torch.export.export(module.eval(), (given.example,), dynamic_shapes=shapes)


def whole_graph(classifier: Classifier, options: ExportOptions) -> tuple[nn.Module, GraphInput]:
    """Return a classifier as one module from its input to probabilities, and that input.

    Args:
        classifier: The classifier.
        options: Whether resize and crop are left out.

    Raises:
        ConfigError: If an evaluation transform has no exact form in a graph.
    """
    network = Network(classifier.model)
    if options.from_network_input:
        return network, network_input(classifier)
    return nn.Sequential(pixels_of(classifier), single(network)), image_input()


def metadata(classifier: Classifier) -> dict[str, str]:
    """Return what an exported file says of its classes and its preprocessing, each value as JSON."""
    values = description(classifier) | {"imgcls_version": versions()["imgcls"]}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def written(classifier: Classifier, model: Path, given: GraphInput, packages: str, details: dict[str, Any]) -> Written:
    """Copy ``classify.py`` beside a model, and describe both.

    Args:
        classifier: The classifier.
        model: The model's file.
        given: Its input.
        packages: What classify.py needs.
        details: Further keys of export.json.
    """
    shutil.copy(Path(__file__).with_name(_CLASSIFY), model.parent)
    command = [sys.executable, str(model.with_name(_CLASSIFY)), "--model", str(model)]
    usage = _USAGE.format(packages=packages, more="" if given.is_image else _SIZED.format(*classifier.image_size))
    details = {"input": given.about(), **details}
    if not given.is_image:
        return Written(command, _TOLERANCE, usage, details=details, prepare=NetworkInput(classifier).write)
    exact = is_exact(read_steps(classifier.evaluation_steps))
    notes = [_IN_GRAPH if exact else f"{_IN_GRAPH} {_ONE_LEVEL}"]
    return Written(command, _TOLERANCE if exact else _INEXACT, usage, notes, details=details)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' notes about their own progress; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
