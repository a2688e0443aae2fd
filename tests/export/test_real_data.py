"""All formats on 654 images of ELPV and 50 photos: pixels, and probabilities from the file on."""

import os
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import pipeline

from imgcls.export.formats import FORMATS, ExportOptions
from imgcls.export.graph import image_input
from imgcls.export.graph_modules import NetworkInput, pixels_of
from imgcls.export.onnx_file import save_onnx
from imgcls.export.parity import check_parity
from imgcls.images import load_image
from imgcls.inference.classifier import Classifier
from tests.helpers.real_data import write_efficientnet_lite0, write_elpv
from tests.helpers.tiny_classifier import CLASSES, tiny_classifier

pytestmark = pytest.mark.slow

PROBABILITIES = [f"prob_{name}" for name in CLASSES]
# width and height: portrait, landscape, 1:4, so tall that Pillow resizes the rows first, 31 pixels, megapixels
SIZES = [(640, 427), (333, 500), (301, 260), (180, 200), (100, 400), (400, 100), (800, 97), (97, 800), (240, 240)]
SIZES += [(224, 224), (31, 47), (47, 31), (1200, 900), (257, 256), (1999, 1501), (31, 31), (120, 480), (239, 320)]
SIZES += [(500, 125), (448, 448)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """50 photos: two in 20 sizes, and grey, CMYK, palette, turned, transparent, 16-bit, WebP and TIFF files."""
    folder = tmp_path_factory.mktemp("photos")
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number, size in enumerate(SIZES):
        for which, picture in enumerate(pictures):
            kind = "png" if (number + which) % 2 else "jpg"
            picture.resize(size, Image.Resampling.LANCZOS).save(folder / f"photo{number:02d}-{which}.{kind}")
    china, flower = pictures
    for name, mode in (
        ("grey.jpg", "L"),
        ("cmyk.jpg", "CMYK"),
        ("palette.gif", "P"),
        ("w.webp", "RGB"),
        ("t.tif", "RGB"),
    ):
        china.convert(mode).save(folder / name)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        flower.save(folder / f"exif{orientation}.jpg", exif=exif)
    alpha = flower.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(flower.size))
    alpha.save(folder / "alpha.png")
    Image.fromarray(np.asarray(china.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    found = sorted(map(str, folder.iterdir()))
    assert len(found) == 50
    return found


@pytest.fixture(scope="module")
def images(photos: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The 704 files."""
    elpv = write_elpv(tmp_path_factory.mktemp("elpv"))
    return [*sorted(map(str, elpv.glob("test/*/*"))), *photos]


def largest_difference(classifier: Classifier, folder: Path, name: str, images: list[str]) -> float:
    """Export, run classify.py in a process of its own; every top-1 must be the same."""
    (folder / name).mkdir()
    written = FORMATS[name].write(classifier, folder / name, ExportOptions())
    assert written.tolerance == 1e-4
    (folder / "list.txt").write_text("\n".join(images))
    command = [*written.command, "--list", str(folder / "list.txt"), "--output", str(folder / "rows.csv")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, check=True, env=environment)
    rows, expected = pd.read_csv(folder / "rows.csv"), classifier.predict(images)
    assert rows["prediction"].fillna("").tolist() == expected["prediction"].tolist()
    return float(np.abs(rows[PROBABILITIES].to_numpy() - expected[PROBABILITIES].to_numpy()).max())


@pytest.mark.parametrize("kernel", ["torchvision", "pillow"])
def test_every_pixel_in_the_onnx_graph_is_that_of_the_program(kernel: str, images: list[str], tmp_path: Path) -> None:
    specs = [
        {
            "class_path": "imgcls.ResizeShortestEdge",
            "init_args": {"edge": 240, "interpolation": "bicubic", "kernel": kernel},
        },
        {"class_path": "imgcls.CenterCrop", "init_args": {"height": 224, "width": 224, "kernel": kernel}},
    ]
    classifier = tiny_classifier("resnet", tmp_path, augmentations={"eval": specs})
    save_onnx(pixels_of(classifier), image_input(), tmp_path / "pixels.onnx", {}, "pixels")
    session = onnxruntime.InferenceSession(str(tmp_path / "pixels.onnx"), providers=["CPUExecutionProvider"])
    source, differing = NetworkInput(classifier), 0
    for path in images:
        [found] = session.run(None, {"image": load_image(path)})
        differing += int((np.asarray(found)[0] != source.pixels(path).transpose(2, 0, 1)).sum())
    assert len(images) == 704
    assert differing == 0, f"{differing} of {704 * 224 * 224 * 3} values"


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_efficientnet_gives_the_probabilities_of_imgcls_on_704_files(
    name: str, images: list[str], tmp_path: Path
) -> None:
    write_efficientnet_lite0(tmp_path)
    classifier = tiny_classifier("timm_wrapper", tmp_path, pretrained=True)
    assert largest_difference(classifier, tmp_path, name, images) < 1e-5


@pytest.mark.parametrize("name", ["onnx", "torch"])
@pytest.mark.parametrize("model_type", ["vit", "convnext", "swin", "resnet"])
def test_architectures_give_the_probabilities_of_imgcls_on_50_photos(
    model_type: str, name: str, photos: list[str], tmp_path: Path
) -> None:
    classifier = tiny_classifier(model_type, tmp_path, multilabel=model_type == "resnet", temperature=1.5)
    assert largest_difference(classifier, tmp_path, name, photos) < 1e-5


CANNOT_AGREE = {"alpha.png": "transparent", "deep.png": "16-bit"}  # files that transformers reads otherwise


@pytest.mark.parametrize("model_type", ["vit", "timm_wrapper"])
def test_pipeline_gives_the_probabilities_of_imgcls_on_704_files(
    model_type: str, images: list[str], tmp_path: Path
) -> None:
    if model_type == "timm_wrapper":
        write_efficientnet_lite0(tmp_path)
    is_timm = model_type == "timm_wrapper"
    classifier = tiny_classifier(model_type, tmp_path, pretrained=is_timm, image_size=None if is_timm else (224, 224))
    exported = tmp_path / "hf"
    exported.mkdir()
    parity = check_parity(classifier, FORMATS["hf"].write(classifier, exported, ExportOptions()), images)
    assert {Path(path).name: reason for path, reason in parity.left_out.items()} == CANNOT_AGREE
    assert (parity.images, parity.same_top1, parity.beyond) == (702, 702, 0)
    assert parity.max_difference < 1e-3
    classify, source = pipeline("image-classification", str(exported)), NetworkInput(classifier)
    for path in images:
        if Path(path).name not in CANNOT_AGREE:
            with Image.open(path) as image:  # transformers leaves the file of a GIF open
                theirs = classify.preprocess(image)["pixel_values"]
            ours = classifier.model.normalize(torch.from_numpy(source.pixels(path)).permute(2, 0, 1)[None])
            # timm's ToTensor divides by 255 before it normalises, which rounds; a level is at least 0.007
            assert (ours - theirs).abs().max() <= (1e-6 if is_timm else 0), path


@pytest.mark.parametrize("model_type", ["convnext", "swin", "resnet"])
def test_pipeline_gives_the_probabilities_of_imgcls_on_50_photos(
    model_type: str, photos: list[str], tmp_path: Path
) -> None:
    classifier = tiny_classifier(model_type, tmp_path, multilabel=model_type == "resnet", temperature=1.5)
    (tmp_path / "hf").mkdir()
    parity = check_parity(classifier, FORMATS["hf"].write(classifier, tmp_path / "hf", ExportOptions()), photos)
    assert (parity.images, parity.same_top1) == (48, 48)
    assert parity.max_difference < 1e-3
