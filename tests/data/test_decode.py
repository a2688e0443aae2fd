"""``data.decode``: which images are decoded at a smaller size, and that a checkpoint keeps it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import imgcls
from imgcls.cli.main import main
from imgcls.data.splitting.split import Split
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, read_sample
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError
from imgcls.images import Pixels, load_image
from tests.conftest import COLOURS
from tests.helpers.runs import arguments, load

Sides = list[tuple[str, int | None]]  # class folder's parent, min_side


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large JPEGs in train, val and test."""
    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(colour, 20, (300, 400, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Sides:
    """How each file is read; not the one on which the lists are tried."""
    found: Sides = []

    def noted(path: str, max_pixels: int, min_side: int | None = None) -> Pixels:
        found.append((Path(path).parts[-3], min_side))
        return load_image(path, max_pixels, min_side)

    monkeypatch.setattr("imgcls.datasets.dataset.load_image", noted)
    monkeypatch.setattr("imgcls.inference.inputs.load_image", noted)
    monkeypatch.setattr(Split, "first_readable", lambda _: None)
    return found


def fit(large: Path, tiny_model: Path, out: Path, *more: str) -> Path:
    main(["fit", *arguments(large, tiny_model, out, "--trainer.max_epochs=1", *more)])
    return out / "run/version_0/checkpoints/best.ckpt"


CROP = 64  # 32 / sqrt(0.25): the preset's crop of 32 pixels
EDGE = 68  # twice the 34 pixels of the resize


def test_training_crops_are_scaled_and_evaluation_is_exact(
    large: Path, tiny_model: Path, tmp_path: Path, sides: Sides
) -> None:
    path = fit(large, tiny_model, tmp_path)
    assert set(sides) == {("train", CROP), ("val", None), ("test", None)}
    assert load(path)["ImageDataModule"]["decode"] == "exact"
    assert imgcls.load(path).decode == "exact"


def test_scaled_evaluation_is_kept_by_the_checkpoint_and_obeyed(
    large: Path, tiny_model: Path, tmp_path: Path, sides: Sides
) -> None:
    path = fit(large, tiny_model, tmp_path, "--data.decode=scaled")
    assert set(sides) == {("train", CROP), ("val", EDGE), ("test", EDGE)}
    assert load(path)["ImageDataModule"]["decode"] == "scaled"
    table = tmp_path / "predictions.csv"
    test = ["test", f"--ckpt_path={path}", "--experiment.report=false"]
    for line, side in (
        (test, EDGE),
        ([*test, "--data.decode=exact"], None),
        (["predict", str(path), str(large / "test"), f"--output={table}"], EDGE),
    ):
        sides.clear()
        main([*line, "--data.num_workers=0"])
        assert sides == [("test", side)] * 6
    sides.clear()
    classifier = imgcls.load(path)
    predicted = classifier.predict(str(large / "test"))["probability"]
    assert (classifier.decode, sides) == ("scaled", [("test", EDGE)] * 6)
    expected = pd.read_csv(table, dtype={"probability": np.float32})["probability"]
    np.testing.assert_array_equal(predicted, expected)


def test_an_older_checkpoint_decodes_exactly_and_another_value_is_refused(
    large: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = fit(large, tiny_model, tmp_path, "--data.decode=scaled")
    content = load(path)
    for value in (None, "eager"):
        content["ImageDataModule"]["decode"] = value
        torch.save(content, path)
        with pytest.raises(ConfigError, match="decode"):
            imgcls.load(path)
    del content["ImageDataModule"]["decode"]
    torch.save(content, path)
    assert imgcls.load(path).decode == "exact"
    with pytest.raises(ConfigError, match="decode must be exact or scaled, got 'fast'"):
        imgcls.ImageDataModule(decode="fast")  # type: ignore[arg-type]


# -- classes of users


class Inverted(FolderImageDataset):
    """Overrides ``read`` alone."""

    def read(self, index: int) -> Pixels:
        return np.subtract(255, super().read(index), dtype=np.uint8)


class Scaling(Inverted):
    """Overrides both."""

    def read_scaled(self, index: int, min_side: int) -> Pixels:
        return np.full((min_side, min_side, 3), 7, np.uint8)


class Named(Scaling):
    """Overrides neither."""


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (FolderImageDataset, (75, 100, 3)),
        (Inverted, (300, 400, 3)),
        (Scaling, (70, 70, 3)),
        (Named, (70, 70, 3)),
    ],
)
def test_a_class_with_its_own_read_is_read_by_it(kind: type[ImageDataset], shape: tuple[int, ...], large: Path) -> None:
    data: Any = kind
    made: ImageDataset = data(str(large / "train"))
    assert read_sample(made, 0, 70).shape == shape
    assert read_sample(JoinedDataset([made, made]), 13, 70).shape == shape
    assert read_sample(made, 0).shape == (300, 400, 3)
