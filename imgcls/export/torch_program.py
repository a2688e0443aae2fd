"""A program of torch.export: one file from the pixels of an image to probabilities."""

import json
from pathlib import Path

import torch

from imgcls.export.formats import ExportOptions, Written
from imgcls.export.graph import export_program, metadata, quiet, whole_graph, written
from imgcls.inference.classifier import Classifier

_DESCRIPTION = "description"  # name of the extra file in a .pt2 that says what its output means, as JSON


def write(classifier: Classifier, folder: Path, options: ExportOptions) -> Written:
    """Write ``model.pt2`` and ``classify.py``.

    Args:
        classifier: The classifier, on the CPU in float32.
        folder: An empty folder.
        options: Whether resize and crop are left out.

    Raises:
        ConfigError: If an evaluation transform has no exact form in a graph.
    """
    model = folder / "model.pt2"
    graph, given = whole_graph(classifier, options)
    program = export_program(graph, given)
    texts: dict[str, str | bytes] = {_DESCRIPTION: json.dumps(metadata(classifier), ensure_ascii=False)}
    with quiet():
        torch.export.save(program, model, extra_files=texts)
    return written(classifier, model, given, "numpy pillow torch", {})
