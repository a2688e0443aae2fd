"""INT8: the network's convolutions and matrix products with 8-bit weights and activations, calibrated on images."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.datasets.image_paths import find_images
from imgcls.errors import ConfigError, ImageError
from imgcls.export.classify import Model
from imgcls.export.formats import INT8, ExportOptions
from imgcls.export.graph import image_input, metadata, network_input
from imgcls.export.graph_modules import Network, NetworkInput, pixels_of, single
from imgcls.export.images import SPLITS, Labelled, evenly_spread, images_of
from imgcls.export.onnx_file import save_onnx
from imgcls.images import Pixels, load_image
from imgcls.inference.classifier import Classifier
from imgcls.statistics.intervals import wilson

log = logging.getLogger(__name__)

_CALIBRATING = 100  # images, evenly spread
_JUDGING = 1000  # images to judge the loss by, at most
_OPERATORS = ["Conv", "MatMul", "Gemm"]  # norms, softmax and activations stay in float32


def quantize(classifier: Classifier, model: Path, options: ExportOptions) -> dict[str, Any]:
    """Write ``model_int8.onnx`` beside the model in float32, and report what it loses.

    Resize, crop and normalisation stay as they are. Source of the method: static quantization of onnxruntime, QDQ.

    Args:
        classifier: The classifier.
        model: The model in float32.
        options: The images to calibrate with; whether resize and crop are left out.

    Returns:
        Numbers for export.json.

    Raises:
        ConfigError: If there are no images to calibrate with.
    """
    calibrating, judging, name = _images(classifier, options.images)
    file = model.with_name(INT8)
    _write(classifier, file, [each.path for each in calibrating], options.from_network_input)
    source = NetworkInput(classifier).pixels if options.from_network_input else load_image
    return _report(model, file, source, judging, name) | {"calibration_images": len(calibrating)}


def _images(classifier: Classifier, given: Sequence[str]) -> tuple[list[Labelled], list[Labelled], str]:
    """Return images to calibrate with, others to judge the loss by, and in words what these are.

    The loss is judged by test images, else by validation images. Without any, the images are of one set, and the same
    if they are few.
    """
    of_run = {split: images_of(classifier, split) for split in SPLITS}
    given_images = [Labelled(path, None) for path in find_images(list(given))] if given else []
    found = given_images or of_run["train"] or of_run["validation"] or of_run["test"]
    if not found:
        raise ConfigError("--quantize needs images to calibrate with, as the run's are not here; add --images PHOTOS")
    calibrating = evenly_spread(found, _CALIBRATING)
    used = {each.path for each in calibrating}
    for split in ("test", "validation"):
        if held_out := [each for each in of_run[split] if each.path not in used]:
            return calibrating, evenly_spread(held_out, _JUDGING), f"{SPLITS[split]} images"
    rest = [each for each in found if each.path not in used]
    judging = evenly_spread(rest if len(rest) >= _CALIBRATING else found, _JUDGING)
    return calibrating, judging, "given images" if given else "training images"


def _write(classifier: Classifier, file: Path, paths: list[str], from_network_input: bool) -> None:
    """Quantise the network; put resize and crop in front of it."""
    from onnxruntime.quantization import QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network = Network(classifier.model)
    given = network_input(classifier, batch=None if from_network_input else 1)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, _quiet_root():
        plain, ready, small, pixels = (Path(folder, f"{name}.onnx") for name in ("plain", "ready", "small", "pixels"))
        save_onnx(network if from_network_input else single(network), given, plain, {})
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        reader = _Reader(NetworkInput(classifier), paths, given.name)
        quantize_static(
            str(ready),
            str(small),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
        )
        if not from_network_input:
            save_onnx(pixels_of(classifier), image_input(), pixels, {}, output="pixels")
        join(small, None if from_network_input else pixels, file, metadata(classifier))


def join(network: Path, pixels: Path | None, file: Path, texts: dict[str, str]) -> None:
    """Put a graph of resize and crop in front of that of a network.

    Args:
        network: Its input is ``images``.
        pixels: Its output is ``pixels``; None: there is none.
        file: The file to write.
        texts: Its ``metadata_props``.
    """
    import onnx

    model = onnx.load(network)
    if pixels is not None:
        before = onnx.load(pixels)  # unprefixed: onnx 1.23 leaves names out that the branches of an If use
        model = onnx.compose.add_prefix(model, "network/", rename_inputs=False, rename_outputs=False)
        before.ir_version = model.ir_version = max(before.ir_version, model.ir_version)
        model = onnx.compose.merge_models(before, model, io_map=[("pixels", "images")])
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, file)
    onnx.checker.check_model(str(file), full_check=True)


class _Reader:
    """The network's input of images, one after the other, as onnxruntime's calibration asks for it."""

    def __init__(self, source: NetworkInput, paths: list[str], name: str) -> None:
        self._source, self._name = source, name
        self._paths = iter(paths)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next input; None after the last one."""
        for path in self._paths:
            with suppress(ImageError):
                pixels = self._source.pixels(path)
                return {self._name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}
        return None


def _report(
    before: Path, after: Path, source: Callable[[str], Pixels], images: list[Labelled], name: str
) -> dict[str, Any]:
    """Compare both models on images, called ``name``; log the difference, and return it."""
    models = Model(before), Model(after)
    found: list[tuple[frozenset[str], frozenset[str], frozenset[str] | None]] = []
    for path, label in images:
        with suppress(ImageError):
            pixels = source(path)
            one, other = (
                frozenset(model.class_names[each] for each in model.chosen(model(pixels))) for model in models
            )
            found.append((one, other, label))
    total, same = len(found), sum(one == other for one, other, _ in found)
    report: dict[str, Any] = {"images": total, "source": name, "same_answer": same}
    report["same_answer_interval"] = list(wilson(same, total))
    text = f"same prediction for {same} of {total} {name} ({100 * same / total:.1f} %)"
    if found and all(label is not None for *_, label in found):
        right = [sum(one == label for one, _, label in found), sum(other == label for _, other, label in found)]
        for key, count in zip(("float32", "int8"), right, strict=True):
            report[f"accuracy_{key}"] = count / total
            report[f"accuracy_{key}_interval"] = list(wilson(count, total))
        text += f"; accuracy {_share(right[0], total)} in float32, {_share(right[1], total)} in int8"
    log.info("%s: %s", INT8, text)
    return report


def _share(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"{100 * count / total:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Silence notes of onnxruntime's quantization, whose ``logging.info`` would add a handler to the root logger."""
    handlers = logging.root.handlers
    logging.root.handlers = handlers or [logging.NullHandler()]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        logging.root.handlers = handlers
