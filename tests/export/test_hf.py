"""Format hf: ``transformers.pipeline`` gives the probabilities of imgcls, from the file on."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageClassification, MobileViTImageProcessor, pipeline
from transformers.image_utils import load_image as load_as_pipeline

from imgcls.errors import ConfigError
from imgcls.export.formats import ExportOptions
from imgcls.export.hf import reads_otherwise, write
from imgcls.export.hf_network import own_network
from imgcls.export.hf_processor import read_geometry, timm_settings
from imgcls.images import load_image
from imgcls.inference.classifier import Classifier
from tests.helpers.architectures import tiny_config
from tests.helpers.tiny_classifier import CLASSES, tiny_classifier

PROBABILITIES = [f"prob_{name}" for name in CLASSES]


def both(classifier: Classifier, folder: Path, photos: list[str]) -> tuple[Any, Any]:
    """The probabilities of imgcls, and those of the exported folder: two arrays (images, classes)."""
    exported = folder / "exported"
    exported.mkdir()
    write(classifier, exported, ExportOptions())
    classify = pipeline("image-classification", str(exported))
    answers = [{each["label"]: each["score"] for each in classify(photo, top_k=9)} for photo in photos]
    theirs = np.array([[answer[name] for name in CLASSES] for answer in answers])
    return classifier.predict(photos)[PROBABILITIES].to_numpy(), theirs


CASES: list[tuple[str, dict[str, Any]]] = [
    ("vit", {"temperature": 2.0}),
    ("vit", {"image_size": (64, 48)}),  # position embeddings are interpolated
    ("convnext", {"augmentations": {"eval": "pretrained"}}),
    ("swin", {"image_size": (64, 64)}),
    ("resnet", {"multilabel": True, "temperature": 0.5}),
    ("levit", {"temperature": 2.0}),  # the mean of two heads
    ("timm_wrapper", {"temperature": 2.0}),
    ("timm_wrapper", {"image_size": (64, 48), "multilabel": True}),  # no crop
]


@pytest.mark.parametrize(("model_type", "options"), CASES)
def test_pipeline_gives_the_probabilities_of_imgcls(model_type: str, options: dict[str, Any], tmp_path: Path) -> None:
    classifier = tiny_classifier(model_type, tmp_path, **options)
    ours, theirs = both(classifier, tmp_path, sorted(map(str, tmp_path.glob("photos/*"))))
    assert np.ptp(ours, axis=0).max() > 0.05  # a network that ignored the pixels would agree
    assert np.abs(ours - theirs).max() < 1e-6
    if options.get("multilabel"):
        assert np.abs(theirs.sum(1) - 1).max() > 0.1
    config = json.loads((tmp_path / "exported/config.json").read_text())
    assert config["problem_type"].startswith("multi" if options.get("multilabel") else "single")
    modes = {path.stat().st_mode for path in (tmp_path / "exported").iterdir()}
    assert len(modes) == 1  # safetensors makes files that only their owner can read


def odd_photos(folder: Path) -> list[str]:
    """Photos that go other ways: narrow, smaller than the network's input, CMYK, turned by EXIF, with a palette."""
    photo = Image.open(folder / "photos/flower.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.crop((0, 0, 400, 100)).save(folder / "photos/one_to_four.png")
    photo.resize((31, 20)).save(folder / "photos/small.bmp")
    photo.convert("CMYK").save(folder / "photos/cmyk.jpg")
    photo.save(folder / "photos/turned.jpg", exif=turned)
    photo.convert("P").save(folder / "photos/palette.png")
    return sorted(map(str, folder.glob("photos/*")))


@pytest.mark.parametrize(("model_type", "most"), [("vit", 0.0), ("timm_wrapper", 1e-6)])
def test_the_same_pixels_enter_the_network(model_type: str, most: float, tmp_path: Path) -> None:
    classifier = tiny_classifier(model_type, tmp_path, batch_size=1)
    photos = odd_photos(tmp_path)
    entered: dict[str, list[torch.Tensor]] = {"ours": [], "theirs": []}
    write(classifier, tmp_path, ExportOptions())
    classify = pipeline("image-classification", str(tmp_path))
    for name, network in (("ours", classifier.model.built().network), ("theirs", classify.model)):
        keep = entered[name].append
        network.register_forward_pre_hook(lambda *given, keep=keep: keep(given[2]["pixel_values"]), with_kwargs=True)
    classifier.predict(photos)
    classify(photos)
    ours, theirs = (torch.cat(found) for found in entered.values())
    assert len(ours) == len(photos) == 13
    assert (ours - theirs).abs().max() <= most  # a level is 0.01; timm divides by 255 first, which rounds


def test_model_trained_on_bgr_images(tmp_path: Path) -> None:
    network = AutoModelForImageClassification.from_config(tiny_config("mobilevit"))
    for parameter in network.parameters():
        if parameter.ndim > 1:  # with transformers' own, the features are constant
            nn.init.kaiming_normal_(parameter)
    network.save_pretrained(tmp_path)
    MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    classifier = tiny_classifier("mobilevit", tmp_path, pretrained=True)
    ours, theirs = both(classifier, tmp_path, sorted(map(str, tmp_path.glob("photos/*"))))
    assert np.ptp(ours, axis=0).max() > 0.05
    assert np.abs(ours - theirs).max() < 1e-5


def test_weights_are_saved_in_float32(tmp_path: Path) -> None:
    classifier = tiny_classifier("vit", tmp_path)
    classifier.model.bfloat16()
    network = own_network(classifier.model, (32, 32))
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    assert next(classifier.model.parameters()).dtype == torch.bfloat16  # the classifier is as it was


def test_temperature_of_a_head_that_is_not_linear_is_refused(tmp_path: Path) -> None:
    classifier = tiny_classifier("vit", tmp_path, temperature=2.0)
    classifier.model.built().heads[0] = nn.LayerNorm(16)
    with pytest.raises(ConfigError, match=r"temperature 2 .* head LayerNorm, which is not linear.*--format onnx"):
        write(classifier, tmp_path, ExportOptions())


def test_size_that_is_part_of_the_weights_is_refused(tmp_path: Path) -> None:
    classifier = tiny_classifier("beit", tmp_path, image_size=(64, 64))
    with pytest.raises(ConfigError, match=r"--format hf: beit .* 64 x 64 .* --format onnx .*relative_position_bias"):
        write(classifier, tmp_path, ExportOptions())


RESIZE = {"class_path": "imgcls.Resize", "init_args": {"height": 9, "width": 8, "kernel": "torchvision"}}
CROP = {"class_path": "imgcls.CenterCrop", "init_args": {"height": 8, "width": 8, "kernel": "pillow"}}
REFUSED = [
    (
        [{"class_path": "albumentations.SmallestMaxSize", "init_args": {"max_size": 9}}, CROP],
        r"\[0\] albumentations.Sm",
    ),
    ([RESIZE, {"class_path": "albumentations.CLAHE"}], r"\[1\] albumentations.CLAHE"),
    ([RESIZE | {"init_args": {"height": 9, "width": 8, "p": 0.5}}], r"\[0\] imgcls.Resize"),
    ([RESIZE, RESIZE], r"\[1\] imgcls.Resize"),
    ([RESIZE, CROP], "kernels pillow and torchvision"),
]


@pytest.mark.parametrize(("steps", "named"), REFUSED)
def test_steps_that_no_image_processor_has_are_refused(steps: list[Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"--format hf: data.init_args.augmentations.eval.*{named}.*--format onnx"):
        read_geometry(steps)


def test_timm_resizes_to_the_edge_of_the_steps() -> None:
    for size in range(32, 400, 7):
        for edge in range(size - 3, 2 * size, 5):
            steps: list[Any] = [
                {"class_path": "imgcls.ResizeShortestEdge", "init_args": {"edge": edge, "kernel": "pillow"}},
                {"class_path": "imgcls.CenterCrop", "init_args": {"height": size, "width": size, "kernel": "pillow"}},
            ]
            settings = timm_settings(read_geometry(steps), (0.5,) * 3, (0.5,) * 3)
            assert math.floor(size / settings["crop_pct"]) == edge


FILES: dict[str, tuple[Image.Image, str]] = {
    "clear.png": (Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "transparent"),
    "opaque.png": (Image.new("RGBA", (9, 9), (255, 0, 0, 255)), ""),
    "grey16.png": (Image.fromarray(np.full((9, 9), 30_000, np.uint16)), "16-bit"),
    "grey.png": (Image.new("L", (9, 9), 7), ""),
    "photo.jpg": (Image.new("CMYK", (9, 9), (9, 0, 0, 0)), ""),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_the_pipeline_reads_otherwise(name: str, tmp_path: Path) -> None:
    image, reason = FILES[name]
    path = str(tmp_path / name)
    image.save(path)
    assert reads_otherwise(path) == reason
    assert np.array_equal(load_image(path), np.asarray(load_as_pipeline(path))) == (reason == "")
