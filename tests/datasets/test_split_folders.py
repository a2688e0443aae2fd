"""Folders of splits: when a folder is one, and what it stands for."""

import logging
from pathlib import Path
from typing import Any

import pytest

from imgcls import DatasetClasses, ImageDataModule
from imgcls.datasets.split_folders import open_split_folders, split_folders
from imgcls.errors import ConfigError


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train", "val", "test"], {"train": "train", "validation": "val", "test": "test"}),
        (["Train", "VALID"], {"train": "Train", "validation": "VALID"}),
        (["train", "test", "notes"], {"train": "train", "test": "test"}),
        (["train", "bus", "car"], {}),  # classes
        (["val", "test"], {}),
        (["train"], {}),
        (["cat", "dog"], {}),
    ],
)
def test_train_and_another_split_make_a_folder_of_splits(
    names: list[str], found: dict[str, str], tmp_path: Path
) -> None:
    splits, beside = split_folders(str(made(tmp_path, *names)))
    assert splits == ({split: f"{tmp_path}/{name}" for split, name in found.items()} or {"train": str(tmp_path)})
    assert [*beside] == [f"{tmp_path}/notes"] * ("notes" in names)


def test_files_are_no_splits_and_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    (made(tmp_path, "train") / "test").touch()
    assert split_folders(str(tmp_path)) == ({"train": str(tmp_path)}, {})
    made(tmp_path, "val", "valid")
    with pytest.raises(ConfigError, match="val and valid are both validation; keep one"):
        split_folders(str(tmp_path))


def test_given_splits_win(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, other = made(tmp_path / "d", "train", "val", "test", "raw", ".git"), made(tmp_path / "other", "a")
    given: dict[str, Any] = {"train": str(root), "validation": None, "test": str(other)}
    with caplog.at_level(logging.INFO, "imgcls"):
        assert open_split_folders(given) == {"train": f"{root}/train", "validation": f"{root}/val"}
    assert caplog.messages == [f"{root}: train/ is train, val/ is validation; ignoring 'raw' beside them"]
    assert open_split_folders({"train": None, "test": str(root)}) == {"test": f"{root}/test"}
    assert open_split_folders({"train": str(other), "test": "/none"}) == {}


@pytest.mark.parametrize("kind", [DatasetClasses, dict])
def test_datamodule_records_the_folders_of_the_splits(kind: Any, tmp_path: Path) -> None:
    root = made(tmp_path, "train", "val")
    data = ImageDataModule(kind(train=str(root)))
    assert {name: str(each) for name, each in data.datasets.items() if each} == {
        "train": f"{root}/train",
        "validation": f"{root}/val",
    }
    recorded = data.hparams["dataset_classes"]
    assert vars(recorded)["validation"] == f"{root}/val"
