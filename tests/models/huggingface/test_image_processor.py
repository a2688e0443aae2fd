"""What a model's own image processor does, imgcls does: same size, same crop, same numbers."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from imgcls.data.transforms.build import build_pipeline
from imgcls.data.transforms.model_transforms import eval_specs
from imgcls.errors import ConfigError
from imgcls.models.architecture import call
from imgcls.models.huggingface.build import build, load_network, set_classes
from imgcls.models.huggingface.hub import load_config
from imgcls.models.huggingface.image_processor import read_preprocessing
from imgcls.types import Preprocessing
from tests.helpers.architectures import tiny_config

RESNET = {  # as microsoft/resnet-18 has it: an old name, and a size that is not explained
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "crop_pct": 0.875,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
MOBILEVIT = {  # as apple/mobilevit-small has it
    "feature_extractor_type": "MobileViTFeatureExtractor",
    "crop_size": 256,
    "do_center_crop": True,
    "do_flip_channels": True,
    "resample": 2,
    "size": 288,
}
EFFICIENTNET = {
    "image_processor_type": "EfficientNetImageProcessor",
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
}
TIMM = {
    "input_size": [3, 176, 176],
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}


def write_model(folder: Path, model_type: str, processor: str | dict[str, object]) -> str:
    """A folder with config.json, and the preprocessor_config.json of a class's defaults or as given."""
    tiny_config(model_type).save_pretrained(folder)
    if isinstance(processor, str):
        getattr(transformers, processor)().save_pretrained(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return str(folder)


def smooth_image(height: int, width: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def evaluate(preprocessing: Preprocessing, image: NDArray[np.uint8]) -> Tensor:
    pixels = torch.tensor(build_pipeline(eval_specs(preprocessing), "eval")(image, 0)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (pixels - mean) / std


def read(folder: str) -> Preprocessing:
    return read_preprocessing(folder, load_config(folder))[0]


def assert_as_processor(folder: str, image: NDArray[np.uint8], is_bgr: bool = False) -> None:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    expected = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    result = evaluate(read(folder), image)
    assert result.shape == expected.shape
    assert (result.flip(0) if is_bgr else result).sub(expected).abs().mean() < 0.05


@pytest.mark.parametrize("sides", [(300, 400), (390, 260)])
@pytest.mark.parametrize(
    ("model_type", "processor"),
    [
        ("beit", "BeitImageProcessor"),
        ("bit", "BitImageProcessor"),
        ("clip", "CLIPImageProcessor"),
        ("convnext", "ConvNextImageProcessor"),
        ("efficientnet", "EfficientNetImageProcessor"),
        ("efficientnet", EFFICIENTNET),
        ("levit", "LevitImageProcessor"),
        ("mobilenet_v1", "MobileNetV1ImageProcessor"),
        ("mobilenet_v2", "MobileNetV2ImageProcessor"),
        ("perceiver", "PerceiverImageProcessor"),
        ("poolformer", "PoolFormerImageProcessor"),
        ("pvt", "PvtImageProcessor"),
        ("resnet", RESNET),
        ("segformer", "SegformerImageProcessor"),
        ("siglip", "SiglipImageProcessor"),
        ("vit", "ViTImageProcessor"),
        ("vit", {"size": {"height": 192, "width": 256}, "resample": 1, "do_normalize": False}),
    ],
)
def test_images_are_prepared_as_by_the_processor(
    model_type: str, processor: str | dict[str, object], sides: tuple[int, int], tmp_path: Path
) -> None:
    assert_as_processor(write_model(tmp_path, model_type, processor), smooth_image(*sides))


@pytest.mark.parametrize(
    ("model_type", "processor"),
    [("mobilevit", "MobileViTImageProcessor"), ("mobilevit", MOBILEVIT), ("pp_lcnet", "PPLCNetImageProcessor")],
)
def test_network_trained_on_bgr_is_turned_to_rgb(
    model_type: str, processor: str | dict[str, object], tmp_path: Path
) -> None:
    folder = write_model(tmp_path, model_type, processor)
    assert_as_processor(folder, smooth_image(300, 400), is_bgr=True)
    config = tiny_config(model_type)
    set_classes(config, ["a", "b"])
    network = build(config).eval()
    network.save_pretrained(folder)
    images = torch.rand(2, 3, 64, 64)
    _, is_bgr = read_preprocessing(folder, load_config(folder))
    with torch.no_grad():
        turned = call(load_network(folder, True, ["c", "d"], is_bgr=is_bgr)[0].eval(), images.flip(1), None)
        torch.testing.assert_close(turned, call(network, images, None))


@pytest.mark.parametrize(
    ("model_type", "processor", "size", "shortest_edge"),
    [
        ("deit", "DeiTImageProcessor", (224, 224), 256),  # stretched to 256 x 256; here, as DeiT was trained, it is not
        ("textnet", "TextNetImageProcessor", (640, 640), 640),  # sizes vary with the image
        ("vit", {"image_processor_type": "DonutImageProcessor", "size": {"height": 80, "width": 60}}, (80, 60), None),
    ],
)
def test_what_is_done_otherwise_is_said(
    model_type: str,
    processor: str | dict[str, object],
    size: tuple[int, int],
    shortest_edge: int | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_model(tmp_path, model_type, processor)
    with caplog.at_level(logging.INFO):
        preprocessing = read(folder)
    assert (preprocessing.size, preprocessing.shortest_edge) == (size, shortest_edge)
    assert "ImageProcessor stretches, pads or has no fixed size; using " in caplog.text


def test_timm_states_its_own(tmp_path: Path) -> None:
    config = tiny_config("timm_wrapper")
    config.save_pretrained(tmp_path)
    assert read(str(tmp_path)).size == (160, 160)  # timm knows the architecture
    config.pretrained_cfg = TIMM
    config.save_pretrained(tmp_path)
    assert read(str(tmp_path)) == Preprocessing((176, 176), 185, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "pillow")
    assert_as_processor(str(tmp_path), smooth_image(300, 400))


def test_timm_config_may_be_short(tmp_path: Path) -> None:
    record = {"model_type": "timm_wrapper", "architecture": "test_resnet", "pretrained_cfg": TIMM}
    (tmp_path / "config.json").write_text(json.dumps(record), encoding="utf-8")
    assert read(str(tmp_path)).size == (176, 176)
    assert load_network(str(tmp_path), False, ["a", "b", "c"])[0].num_labels == 3


def test_imagenet_at_the_size_of_the_config_where_nothing_is_stated(tmp_path: Path) -> None:
    tiny_config("clip").save_pretrained(tmp_path)
    assert read(str(tmp_path)) == Preprocessing(size=(32, 32), shortest_edge=37)


@pytest.mark.parametrize("content", [b'{"image_mean": [0.4', b"version https://git-lfs.github.com/spec/v1\n"])
def test_damaged_file_of_the_processor_is_none_that_is_absent(content: bytes, tmp_path: Path) -> None:
    folder = write_model(tmp_path, "resnet", RESNET)
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{tmp_path}/preprocessor_config.json is not JSON"):
        read(folder)


@pytest.mark.parametrize("code", [{}, {"auto_map": {"AutoImageProcessor": "own.OwnImageProcessor"}}])
def test_unknown_processor_is_refused(code: dict[str, object], tmp_path: Path) -> None:
    folder = write_model(tmp_path, "vit", {"image_processor_type": "OwnImageProcessor", **code})
    with pytest.raises(ConfigError, match="cannot be loaded"):
        read(folder)
