"""ONNX: one file from the pixels of an image to probabilities, and a program that applies it to files."""

from importlib.util import find_spec
from pathlib import Path

from imgcls.errors import ConfigError
from imgcls.export.formats import BATCHED, ExportOptions, Written
from imgcls.export.graph import metadata, network_input, whole_graph, written
from imgcls.export.graph_modules import Network
from imgcls.export.onnx_file import OPSET, save_onnx
from imgcls.export.quantize import quantize
from imgcls.inference.classifier import Classifier

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write(classifier: Classifier, folder: Path, options: ExportOptions) -> Written:
    """Write ``model.onnx``, the files that the options ask for, and ``classify.py``.

    Args:
        classifier: The classifier, on the CPU in float32.
        folder: An empty folder.
        options: What else is written.

    Raises:
        ConfigError: If a package is missing, or an evaluation transform has no exact form in a graph.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"--format onnx needs {' and '.join(missing)}; type: pip install 'imgcls[onnx]'")
    model, texts = folder / "model.onnx", metadata(classifier)
    graph, given = whole_graph(classifier, options)
    save_onnx(graph, given, model, texts)
    if options.batched:
        save_onnx(Network(classifier.model), network_input(classifier), folder / BATCHED, texts)
    details: dict[str, object] = {"opset": OPSET}
    if options.quantize:
        details["quantization"] = quantize(classifier, model, options)
    return written(classifier, model, given, "numpy pillow onnxruntime", details)
