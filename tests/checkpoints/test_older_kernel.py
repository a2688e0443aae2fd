"""A checkpoint that names no kernel was made with OpenCV's, and keeps it."""

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

import imgcls
from imgcls.cli.main import main
from imgcls.config.class_path import Spec
from imgcls.data.transforms import train_and_eval
from imgcls.data.transforms.presets import Preset, preset_specs
from imgcls.images import load_image
from imgcls.types import Preprocessing
from tests.helpers.runs import arguments, load

RESAMPLING = {"interpolation": cv2.INTER_LINEAR, "area_for_downscale": "image"}
STEPS = [
    {"class_path": "albumentations.SmallestMaxSize", "init_args": {"max_size": 34, **RESAMPLING}},
    {"class_path": "albumentations.CenterCrop", "init_args": {"height": 32, "width": 32, "pad_if_needed": True}},
]


@pytest.fixture(scope="module")
def older(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one epoch as it was written before kernels were recorded."""
    out = tmp_path_factory.mktemp("run")
    main(["fit", *arguments(photos, tiny_model, out, "--trainer.max_epochs=1")])
    path = out / "run/version_0/checkpoints/last.ckpt"
    content = load(path)
    assert content["imgcls"]["preprocessing"].pop("kernel") == "torchvision"
    content["ImageDataModule"]["eval"] = STEPS
    torch.save(content, path)
    return path


def test_it_is_evaluated_with_opencv(older: Path, photos: Path) -> None:
    compose = A.Compose([A.SmallestMaxSize(34, **RESAMPLING), A.CenterCrop(32, 32, pad_if_needed=True)])
    classifier = imgcls.load(str(older))
    assert classifier.model.preprocessing.kernel == "opencv"
    image = load_image(str(photos / "red/000.png"))
    pipeline = classifier._pipelines.make("eval", image)
    np.testing.assert_array_equal(pipeline(image, 0), compose(image=image)["image"])


def test_its_resumed_run_trains_with_opencv(
    older: Path, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Preprocessing] = []

    def spied(preset: Preset, preprocessing: Preprocessing) -> list[Spec]:
        trained.append(preprocessing)
        return preset_specs(preset, preprocessing)

    monkeypatch.setattr(train_and_eval, "preset_specs", spied)
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=2", f"--ckpt_path={older}")])
    assert {preprocessing.kernel for preprocessing in trained} == {"opencv"}
    assert preset_specs("light", trained[0])[0]["class_path"] == "albumentations.RandomResizedCrop"
    [last] = tmp_path.rglob("last.ckpt")
    content = load(last)
    assert content["imgcls"]["preprocessing"]["kernel"] == "opencv"
    assert content["ImageDataModule"]["eval"] == STEPS
