"""A program of torch.export: one file from the pixels of an image to probabilities."""

import json
from pathlib import Path

import torch

from imgcls.export.formats import ExportOptions, Written
from imgcls.export.graph import export_program, image_input, metadata, network_input, quiet, written
from imgcls.export.program import Network, Program, pixels_of
from imgcls.inference.classifier import Classifier

DESCRIPTION = "description"
"""Name of the extra file in a .pt2 that says what its output means, as JSON."""


def write(classifier: Classifier, folder: Path, options: ExportOptions) -> Written:
    """Write ``model.pt2`` and ``classify.py``.

    Args:
        classifier: The classifier, on the CPU in float32.
        folder: An empty folder.
        options: Whether resize and crop are left out.

    Raises:
        ConfigError: If an evaluation transform has no exact form in a graph.
    """
    model, network = folder / "model.pt2", Network(classifier.model)
    given = network_input(classifier) if options.from_network_input else image_input()
    program = export_program(network if options.from_network_input else Program(pixels_of(classifier), network), given)
    texts: dict[str, str | bytes] = {DESCRIPTION: json.dumps(metadata(classifier), ensure_ascii=False)}
    with quiet():
        torch.export.save(program, model, extra_files=texts)
    return written(classifier, model, given, "numpy pillow torch", {})
