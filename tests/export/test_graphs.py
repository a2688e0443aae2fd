"""Formats onnx and torch: the probabilities of imgcls from one file, in programs without imgcls."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx as package
import onnxruntime
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

import imgcls.export.pixel_steps
from imgcls.errors import ConfigError, RunError
from imgcls.export import onnx
from imgcls.export.export import export
from imgcls.export.formats import FORMATS, ExportOptions, Written
from imgcls.export.graph import image_input
from imgcls.export.graph_modules import NetworkInput, pixels_of
from imgcls.export.onnx_file import save_onnx
from imgcls.export.parity import check_parity
from imgcls.export.quantize import join
from imgcls.images import load_image
from imgcls.inference.classifier import Classifier
from tests.helpers.tiny_classifier import CLASSES, tiny_classifier

PROBABILITIES = [f"prob_{name}" for name in CLASSES]
# classify.py as a program, with the modules that it must not need
WITHOUT = """
import runpy, sys
sys.path.insert(0, "")
sys.argv = ["classify.py", *sys.argv[1:]]
runpy.run_path("classify.py", run_name="__main__")
assert not {forbidden!r} & set(sys.modules), set(sys.modules) & {forbidden!r}
"""


_IDENTITY = """
<ir_version: 10, opset_import: ["": 20]>
network (uint8[1, 3, 44, 44] images) => (uint8[1, 3, 44, 44] probabilities) { probabilities = Identity (images) }
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Photos of many sizes and kinds, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    china, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    sizes = [(640, 427), (90, 300), (100, 400), (400, 97), (31, 31), (48, 48), (301, 260), (57, 56)]
    for number, size in enumerate(sizes):
        china.resize(size).save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")
    small = flower.resize((120, 80))
    small.convert("CMYK").save(folder / "cmyk.jpg")
    small.convert("P").save(folder / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(folder / "turned.jpg", exif=exif)
    alpha = small.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(small.size))
    alpha.save(folder / "alpha.png")
    Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    (folder / "=broken.jpg").write_bytes(b"no image")
    return sorted(map(str, folder.iterdir()))


def write(classifier: Classifier, folder: Path, name: str, **options: Any) -> Written:
    folder.mkdir()
    return FORMATS[name].write(classifier, folder, ExportOptions(**options))


def classified(folder: Path, photos: list[str], forbidden: set[str]) -> pd.DataFrame:
    """The rows that classify.py writes in a process without some modules."""
    (folder / "photos.txt").write_text("\n".join(photos))
    command = [sys.executable, "-c", WITHOUT.format(forbidden=forbidden), "--list", "photos.txt", "--output", "p.csv"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(folder / "p.csv")


def assert_same(rows: pd.DataFrame, classifier: Classifier, photos: list[str]) -> None:
    expected = classifier.predict(photos)
    assert list(rows.columns) == list(expected.columns)
    assert rows["path"].tolist() == photos
    good = (expected["error"] == "").to_numpy()
    assert (~good).tolist() == [path.endswith("=broken.jpg") for path in photos] == rows["error"].notna().tolist()
    ours, theirs = expected[PROBABILITIES].to_numpy()[good], rows[PROBABILITIES].to_numpy()[good]
    assert np.ptp(ours, axis=0).max() > 0.05  # a network that ignored the pixels would agree
    assert np.abs(ours - theirs).max() < 1e-5
    assert rows["prediction"][good].fillna("").tolist() == expected["prediction"][good].tolist()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return tiny_classifier("resnet", tmp_path_factory.mktemp("model"), temperature=2.0)


@pytest.fixture(scope="module")
def exported(classifier: Classifier, photos: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files of format onnx; to be read only."""
    folder = tmp_path_factory.mktemp("onnx") / "out"
    written = write(classifier, folder, "onnx", batched=True, quantize=True, images=tuple(photos))
    assert written.tolerance == 1e-4
    (folder / "details.json").write_text(json.dumps(written.details))
    return folder


def session(file: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    found = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(found.run(None, {found.get_inputs()[0].name: images})[0])


def test_classify_gives_the_rows_of_predict_without_torch(
    exported: Path, classifier: Classifier, photos: list[str]
) -> None:
    assert_same(classified(exported, photos, {"torch", "imgcls", "cv2"}), classifier, photos)


def test_classify_prints_a_line_per_photo(exported: Path, photos: list[str]) -> None:
    command = [sys.executable, str(exported / "classify.py"), *photos[:2], os.path.dirname(photos[0])]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2 + len(photos)
    assert lines[1].split()[0] == photos[1]
    assert lines[1].split()[1] in CLASSES
    assert "=broken.jpg  is not an image, or of an unknown format" in "\n".join(lines)


def test_names_and_preprocessing_are_in_the_metadata(exported: Path, classifier: Classifier) -> None:
    model = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    found = {key: json.loads(text) for key, text in model.get_modelmeta().custom_metadata_map.items()}
    assert found["class_names"] == CLASSES
    assert found["thresholds"] is None
    assert found["temperature"] == 2
    assert found["preprocessing"] == classifier.evaluation_steps
    [given], [output] = model.get_inputs(), model.get_outputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["height", "width", 3])
    assert (output.name, output.shape) == ("probabilities", [3])


def test_a_batch_of_the_networks_size(exported: Path, classifier: Classifier, photos: list[str]) -> None:
    source, good = NetworkInput(classifier), photos[:5]
    images = np.stack([source.pixels(path).transpose(2, 0, 1) for path in good])
    expected = classifier.predict(good)[PROBABILITIES].to_numpy()
    run = session(exported / "model_batched.onnx")
    assert np.abs(run(images) - expected).max() < 1e-5
    assert np.abs(run(images[:1]) - expected[:1]).max() < 1e-5


def test_quantize_writes_a_smaller_network_with_the_same_pixels(exported: Path, photos: list[str]) -> None:
    nodes = [node.op_type for node in package.load(exported / "model_int8.onnx").graph.node]
    assert nodes.count("QuantizeLinear") > 5
    plain, small = (session(exported / f"{name}.onnx") for name in ("model", "model_int8"))
    pairs = [(plain(pixels), small(pixels)) for pixels in map(load_image, photos[:8])]
    differences = [np.abs(one - other).max() for one, other in pairs]
    assert 1e-5 < max(differences) < 0.1
    report = json.loads((exported / "details.json").read_text())["quantization"]
    assert report["images"] == report["calibration_images"] - 1 == len(photos) - 1
    assert report["same_answer"] >= report["images"] - 2
    low, high = report["same_answer_interval"]
    assert low < report["same_answer"] / report["images"] <= high


@pytest.mark.parametrize("kind", [pytest.param("opencv", marks=pytest.mark.slow), "pillow"])
def test_the_pixels_in_an_onnx_graph_are_those_of_the_program(kind: str, photos: list[str], tmp_path: Path) -> None:
    sizes = {"max_size": 48, "interpolation": 2, "area_for_downscale": "image"}
    older = [
        {"class_path": "albumentations.SmallestMaxSize", "init_args": sizes},
        {"class_path": "albumentations.CenterCrop", "init_args": {"height": 44, "width": 44, "pad_if_needed": True}},
    ]
    own = [
        {
            "class_path": "imgcls.ResizeShortestEdge",
            "init_args": {"edge": 48, "interpolation": "bicubic", "kernel": kind},
        },
        {"class_path": "imgcls.CenterCrop", "init_args": {"height": 44, "width": 44, "kernel": kind}},
    ]
    specs = older if kind == "opencv" else own
    classifier = tiny_classifier("resnet", tmp_path, augmentations={"eval": specs}, image_size=(44, 44))
    save_onnx(pixels_of(classifier), image_input(), tmp_path / "pixels.onnx", {}, "pixels")
    after = package.parser.parse_model(_IDENTITY)
    package.save(after, tmp_path / "after.onnx")
    join(tmp_path / "after.onnx", tmp_path / "pixels.onnx", tmp_path / "joined.onnx", {})
    run, source = session(tmp_path / "joined.onnx"), NetworkInput(classifier)
    good = [path for path in photos if not path.endswith("=broken.jpg")]
    differences = [
        np.abs(run(load_image(path))[0].astype(int) - source.pixels(path).transpose(2, 0, 1)) for path in good
    ]
    assert max(difference.max() for difference in differences) <= (1 if kind == "opencv" else 0)
    assert np.mean([difference > 0 for difference in differences]) < 1e-3


def test_a_torch_program_gives_the_rows_of_predict(photos: list[str], tmp_path: Path) -> None:
    """Of a multi-label model, without imgcls; its file describes itself."""
    model = tiny_classifier("vit", tmp_path, multilabel=True, temperature=0.5)
    write(model, tmp_path / "out", "torch")
    assert_same(classified(tmp_path / "out", photos, {"imgcls", "onnxruntime", "cv2"}), model, photos)
    program = torch.export.load(str(tmp_path / "out/model.pt2")).module()
    with torch.inference_mode():
        found = program(torch.from_numpy(load_image(photos[0])))
    assert found.sum() != pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_from_network_input_takes_images_that_are_resized_already(
    name: str, classifier: Classifier, photos: list[str], tmp_path: Path
) -> None:
    grey = {"class_path": "albumentations.ToGray", "init_args": {"p": 1.0}}  # has no form in a graph
    model = tiny_classifier("resnet", tmp_path, augmentations={"eval": [*classifier.evaluation_steps, grey]})
    with pytest.raises(ConfigError, match=r"albumentations.ToGray: is not a resize.*--from_network_input"):
        write(model, tmp_path / "refused", name)
    written = write(model, tmp_path / "out", name, from_network_input=True)
    parity = check_parity(model, written, photos)
    assert parity.images == parity.same_top1 == len(photos) - 1
    assert parity.max_difference < 1e-5
    rows = classified(tmp_path / "out", photos[:3], {"imgcls"})
    assert "takes 224 x 224" in rows["error"][1]


def test_a_crop_that_is_off_by_one_is_found(
    classifier: Classifier, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = imgcls.export.pixel_steps._centre
    monkeypatch.setattr(imgcls.export.pixel_steps, "_centre", lambda *given: (right(*given)[0] + 1, right(*given)[1]))
    with pytest.raises(RunError, match=r"differs from imgcls predict.*photos\d/0.jpg"):
        export(classifier, "torch", tmp_path / "out", photos)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError, match=r"needs onnxscript; type: pip install 'imgcls\[onnx\]'"):
        write(classifier, tmp_path / "out", "onnx")


def test_cells_that_a_spreadsheet_would_run_are_escaped(exported: Path, photos: list[str]) -> None:
    folder = Path(photos[0]).parent
    command = [sys.executable, str(exported / "classify.py"), "=broken.jpg", "--output", str(exported / "safe.csv")]
    subprocess.run(command, cwd=folder, check=True)
    with (exported / "safe.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["path", "./=broken.jpg"]
