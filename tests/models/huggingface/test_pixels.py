"""The pixels that enter the network are, value for value, those of the model's own image processor."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from imgcls import DatasetClasses, ImageDataModule
from imgcls.data.transforms.from_checkpoint import recorded_steps
from imgcls.data.transforms.model_transforms import eval_specs
from imgcls.models.huggingface.hub import load_config
from imgcls.models.huggingface.image_processor import read_preprocessing
from imgcls.types import Preprocessing
from tests.helpers.architectures import tiny_config
from tests.helpers.real_data import write_elpv

PROCESSORS: dict[str, dict[str, object]] = {
    "vit": {"image_processor_type": "ViTImageProcessor"},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
    "convnextv2": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
    "resnet": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.922},
    "swin": {"image_processor_type": "ViTImageProcessor", "resample": 3, "size": {"height": 192, "width": 160}},
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 187},
        "crop_size": {"height": 160, "width": 160},
    },
    "beit": {"image_processor_type": "ViTImageProcessor", "resample": 0},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 183}, "resample": 2},
}
TIMM: dict[str, dict[str, object]] = {
    "center": {"crop_pct": 0.95, "interpolation": "bicubic"},
    "bilinear": {"crop_pct": 0.922, "interpolation": "bilinear"},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"},
}


def write_images(folder: Path) -> None:
    """Files of odd shapes and modes: portrait, 1:4, 31 pixels, narrow, grey, CMYK, turned, of the network's size."""
    folder.mkdir(parents=True)
    photo = Image.fromarray(load_sample_images().images[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(folder / "photo.jpg", quality=95)
    photo.resize((431, 640)).save(folder / "portrait.png")
    photo.resize((203, 812)).save(folder / "narrow.png")
    photo.resize((900, 225)).save(folder / "wide.png")
    photo.resize((31, 23)).save(folder / "small.png")
    photo.resize((3, 200)).save(folder / "column.png")
    photo.resize((185, 186)).save(folder / "same.png")
    photo.convert("L").save(folder / "grey.jpg")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.save(folder / "turned.jpg", exif=turned)
    noise = np.random.default_rng(0).integers(0, 256, (260, 330, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")


def write_model(folder: Path, name: str) -> Path:
    config = tiny_config(name if name in PROCESSORS else "timm_wrapper")
    if name in TIMM:
        usual = {"input_size": [3, 176, 176], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
        config.pretrained_cfg = usual | TIMM[name]
    config.save_pretrained(folder)
    if name in PROCESSORS:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[name]), encoding="utf-8")
    return folder


def different(model: Path, images: Path) -> dict[str, int]:
    """Return how many values differ between ``imgcls test`` and the model's processor, for each file with any."""
    preprocessing, _ = read_preprocessing(str(model), load_config(str(model)))
    data = ImageDataModule(DatasetClasses(test=str(images)), batch_size=16, num_workers=0)
    data.class_names = sorted(folder.name for folder in images.iterdir())
    data.evaluate_by(recorded_steps(eval_specs(preprocessing)))  # as from a checkpoint
    data.setup("test")
    processor = AutoImageProcessor.from_pretrained(model)
    counts = {}
    for batch in data.test_dataloader():
        for path, pixels in zip(batch["path"], batch["image"], strict=True):
            expected = processor(load_image(path), return_tensors="pt")["pixel_values"][0]
            theirs = pixels_of(expected, preprocessing)
            assert pixels.shape == theirs.shape, path
            counts[path] = int((pixels != theirs).sum())
    assert len(counts) == len([path for path in images.rglob("*") if path.is_file()])
    return {path: count for path, count in counts.items() if count}


def pixels_of(normalised: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    values = (normalised * std + mean) * 255
    assert (values - values.round()).abs().max() < 1e-3  # of whole numbers
    return values.round().to(torch.uint8)


@pytest.mark.parametrize("name", [*PROCESSORS, *TIMM])
def test_pixels_are_those_of_the_models_own_processor(name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images/photos")
    assert different(write_model(tmp_path / "model", name), tmp_path / "images") == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "vit", "center"])
def test_pixels_of_elpv_and_photos_are_those_of_the_models_own_processor(name: str, tmp_path: Path) -> None:
    images = write_elpv(tmp_path / "elpv") / "test"
    (images / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(50):
        photo = Image.fromarray(load_sample_images().images[number % 2])
        size = [int(side) for side in generator.integers(30, 900, 2)]
        photo.resize(size).save(images / "photos" / f"{number}.jpg", quality=int(generator.integers(60, 96)))
    assert len([path for path in images.rglob("*") if path.is_file()]) == 654 + 50
    assert different(write_model(tmp_path / "model", name), images) == {}
