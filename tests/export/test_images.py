"""The images of a run, by split."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from imgcls.cli.main import main
from imgcls.export.export import load_exact
from imgcls.export.images import images_of
from imgcls.export.quantize import _images
from tests.helpers.runs import arguments


@pytest.fixture(scope="module")
def run(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    main(["fit", *arguments(photos, tiny_model, out)])
    return out / "run/version_0"


def test_held_out_images_are_validation_images(run: Path) -> None:
    classifier = load_exact(run / "checkpoints/best.ckpt")
    table = pd.read_csv(run / "splits.csv")
    for split in ("train", "validation"):
        found = images_of(classifier, split)
        assert [each.path for each in found] == sorted(table["path"][table["split"] == split])
        assert all(each.classes == frozenset({Path(each.path).parent.name}) for each in found)
    assert images_of(classifier, "test") == []


def test_paths_need_not_be_utf_8(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "version_0"
    shutil.copytree(run, copied)
    with (copied / "splits.csv").open("ab") as file:
        file.write(b"caf\xe9.png,cat,validation,\n")
    known = [images_of(load_exact(each / "checkpoints/best.ckpt"), "validation") for each in (run, copied)]
    assert known[0] == known[1] != []


def test_the_loss_of_quantization_is_judged_on_held_out_images(run: Path) -> None:
    classifier = load_exact(run / "checkpoints/best.ckpt")
    calibrating, judging, name = _images(classifier, [])
    table = pd.read_csv(run / "splits.csv").set_index("path")["split"]
    assert name == "validation images"
    assert {table[each.path] for each in calibrating} == {"train"}
    assert {table[each.path] for each in judging} == {"validation"}
