"""Hugging Face datasets of this machine: parquet, class folders, and what save_to_disk wrote."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageColumn

from imgcls import FolderImageDataset, HubImageDataset
from imgcls.datasets.fingerprint import fingerprint_of
from imgcls.errors import ConfigError, ImageError
from imgcls.images import load_image
from tests.conftest import COLOURS
from tests.helpers.runs import arguments, fails
from tests.helpers.ways_in import Trainer, assert_learned_and_found_again
from tests.helpers.ways_in import trainer as trainer


@pytest.fixture(autouse=True)
def quiet_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library keeps its copies in the test's folder, and shows no progress."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows_of(root: Path, labels: Any = None) -> Dataset:
    """The pictures below a folder as rows: image, label, file."""
    files = sorted(root.rglob("*.png"))
    names = sorted(COLOURS)
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [names.index(file.parent.name) for file in files],
        "file": [file.name for file in files],
    }
    features = {"image": ImageColumn(), "label": labels or ClassLabel(names=names), "file": Value("string")}
    return Dataset.from_dict(columns, features=Features(features))


def refusal(data: HubImageDataset) -> str:
    with pytest.raises(ConfigError) as caught:
        _ = data.samples
    return str(caught.value).removeprefix(f"{data.name}: ")


def test_hub_dataset_reads_a_parquet_file(tmp_path: Path, photos: Path) -> None:
    file = str(tmp_path / "all.parquet")
    rows_of(photos).to_parquet(file)
    files, data = FolderImageDataset(str(photos)), HubImageDataset(file)
    assert list(data.samples.columns) == ["path", "label", "file"]
    assert data.samples["path"][:2].to_list() == [f"{file}/train/000000", f"{file}/train/000001"]
    assert list(data.samples["label"]) == list(files.samples["label"])
    assert data.samples["file"][1] == "001.png"
    assert [data.fingerprint(row) for row in range(60)] == [files.fingerprint(row) for row in range(60)]
    assert np.array_equal(data.read(7), files.read(7))
    assert not data.holds_files
    with pytest.raises(ImageError, match=f"^{file}/train/000001: has .* pixels, more than max_pixels 9$"):
        HubImageDataset(file, max_pixels=9).read(1)
    said = refusal(HubImageDataset(file, revision="main"))
    assert said == "'revision' must be null for local files, got main"


def test_hub_dataset_reads_a_folder_of_parquet_files(tmp_path: Path, photos: Path, test_photos: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows_of(photos).to_parquet(str(folder / "train-0.parquet"))
    rows_of(test_photos).to_parquet(str(folder / "test-0.parquet"))
    assert len(HubImageDataset(str(folder), "test").samples) == 18
    assert len(HubImageDataset(str(folder), "train[:10%]").samples) == 6
    assert "Should be one of" in refusal(HubImageDataset(str(folder), "val"))
    assert refusal(HubImageDataset(str(folder))) == "'split' is None; the splits are 'train', 'test'"


def test_hub_dataset_reads_class_folders(photos: Path) -> None:
    data = HubImageDataset(str(photos))
    assert set(data.samples["label"]) == set(COLOURS)
    assert np.array_equal(data.read(0), load_image(photos / "blue" / "000.png"))
    assert data.fingerprint(0) == FolderImageDataset(str(photos)).fingerprint(0)


def test_hub_dataset_reads_what_was_saved_to_disk(tmp_path: Path, photos: Path, test_photos: Path) -> None:
    DatasetDict(train=rows_of(photos), test=rows_of(test_photos)).save_to_disk(tmp_path / "both")
    rows_of(test_photos).save_to_disk(tmp_path / "one")
    both, one = str(tmp_path / "both"), str(tmp_path / "one")
    assert len(HubImageDataset(both, "test").samples) == len(HubImageDataset(one).samples) == 18
    assert HubImageDataset(one).samples["path"][0] == f"{one}/all/000000"
    assert refusal(HubImageDataset(both, "val")) == "'split' is val; the splits are 'train', 'test'"


def test_hub_dataset_cuts_no_part_of_what_was_saved(tmp_path: Path, photos: Path) -> None:
    rows = rows_of(photos)
    rows.save_to_disk(tmp_path / "one")
    Dataset(rows.data, split="train").save_to_disk(tmp_path / "train")
    one, train = str(tmp_path / "one"), str(tmp_path / "train")
    assert len(HubImageDataset(train, "train").samples) == len(rows)
    assert (
        refusal(HubImageDataset(one, "test")) == "'split' is test; there is a single split without a name; leave it out"
    )
    for split in ("train[:20%]", "train_small"):
        assert refusal(HubImageDataset(train, split)) == f"'split' is {split}; the only split is train"
    said = refusal(HubImageDataset(train, "train", config="x"))
    assert said == "'config' must be null for local files, got x"


def test_hub_dataset_takes_labels_as_they_stand(tmp_path: Path, photos: Path) -> None:
    rows_of(photos, Value("int64")).save_to_disk(tmp_path / "numbers")
    data = HubImageDataset(str(tmp_path / "numbers"))
    assert sorted(set(data.samples["label"])) == ["0", "1", "2"]
    assert list(HubImageDataset(data.name, label_column="file").samples["label"][:2]) == ["000.png", "001.png"]


def test_hub_dataset_knows_labels_that_are_not_known(tmp_path: Path, photos: Path) -> None:
    some = rows_of(photos).select(range(3))
    labels = ClassLabel(names=sorted(COLOURS))
    some = some.remove_columns("label").add_column("label", [-1, None, 2]).cast_column("label", labels)
    some.save_to_disk(tmp_path / "some")
    assert list(HubImageDataset(str(tmp_path / "some")).samples["label"]) == [None, None, "red"]


def test_hub_dataset_names_columns(tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_of(photos)
    rows.save_to_disk(tmp_path / "rows")
    name = str(tmp_path / "rows")
    assert refusal(HubImageDataset(name, image_column="img")).startswith("image_column: no column 'img'; did you mean")
    assert refusal(HubImageDataset(name, label_column="x")).endswith("'x'; there are image, label, file")
    assert refusal(HubImageDataset(name, label_column="image")).startswith(
        "label_column: choose a column; the candidates are 'label'"
    )
    with pytest.raises(ConfigError, match="no images in the column 'label': "):
        HubImageDataset(name, image_column="label", label_column="file").read(0)
    stored = list(rows.cast_column("image", ImageColumn(decode=False))["image"])
    rows.add_column("second", stored, feature=ImageColumn()).save_to_disk(tmp_path / "two")
    said = refusal(HubImageDataset(str(tmp_path / "two")))
    assert said == "image_column: choose a column; the candidates are 'image', 'second'"
    rows.remove_columns("image").save_to_disk(tmp_path / "none")
    said = refusal(HubImageDataset(str(tmp_path / "none")))
    assert said == "image_column: choose a column; the candidates are none; the columns are 'label', 'file'"
    rows.remove_columns("label").save_to_disk(tmp_path / "bare")
    with caplog.at_level(logging.INFO, "imgcls"):
        assert HubImageDataset(str(tmp_path / "bare")).samples["label"].isna().all()
    assert caplog.messages == [
        f"{tmp_path}/bare: no column of labels, so the images are unlabelled; the columns are 'image', 'file'"
    ]


def test_hub_dataset_says_that_it_does_not_read_lists_of_labels(
    tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of(photos).select(range(2))
    rows.remove_columns("label").add_column("label", [["a", "b"], []]).save_to_disk(tmp_path / "rows")
    with caplog.at_level(logging.INFO, "imgcls"):
        assert HubImageDataset(str(tmp_path / "rows")).samples["label"].isna().all()
    assert caplog.messages[0].endswith("; for multi-label datasets use imgcls.CsvImageDataset")


def test_hub_dataset_names_a_row_without_an_image(tmp_path: Path) -> None:
    features = Features({"image": ImageColumn(), "label": Value("string")})
    rows = Dataset.from_dict({"image": [None, {"bytes": b"", "path": None}], "label": ["a", "b"]}, features=features)
    rows.save_to_disk(tmp_path / "rows")
    data = HubImageDataset(str(tmp_path / "rows"))
    with pytest.raises(ImageError, match=r"000000: the row has no image$"):
        data.read(0)
    with pytest.raises(ImageError, match=r"000001: is empty$"):
        data.read(1)
    assert data.fingerprint(0) == fingerprint_of(f"{tmp_path}/rows/all/000000".encode())


def test_hub_dataset_says_in_one_line_what_cannot_be_loaded(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no")
    wanted = "'name' must be a dataset on the Hub, a local folder or a .parquet file"
    for name, reason in ((str(tmp_path / "broken.parquet"), "Parquet"), ("some/where", "OfflineModeIsEnabled")):
        spec = '{"class_path": "imgcls.HubImageDataset", "init_args": {"name": "' + name + '"}}'
        line = arguments(tmp_path, tiny_model, tmp_path, f"--data.dataset_classes.train={spec}")[1:]
        code, said = fails(["fit", *line], capsys)
        assert code == 2
        assert said.startswith(f"imgcls: {name}: cannot be loaded: ")
        assert reason in said
        assert said.endswith(wanted)


def test_hub_dataset_says_how_to_install_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"needs the package datasets: pip install 'imgcls\[hub\]'"):
        HubImageDataset("x")


def test_hub_dataset_trains_and_its_checkpoint_finds_it_again(
    trainer: Trainer, photos: Path, test_photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    rows_of(photos).to_parquet(str(tmp_path / "mine/train.parquet"))
    rows_of(test_photos).to_parquet(str(tmp_path / "mine/test.parquet"))
    train, test = (
        {"class_path": "imgcls.HubImageDataset", "init_args": {"name": "mine", "split": split}}
        for split in ("train", "test")
    )
    assert_learned_and_found_again(trainer, train, test)
    rows = (trainer.run / "splits.csv").read_text().splitlines()
    assert len(rows) == 1 + 60 + 18
    assert any(row.startswith(f"{tmp_path}/mine/test/000000,blue,test") for row in rows)


def test_a_checkpoint_never_loads_a_dataset_of_the_hub(
    trainer: Trainer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of(photos).save_to_disk(tmp_path / "mine")
    trainer.fit({"class_path": "imgcls.HubImageDataset", "init_args": {"name": "mine"}}, "--data.num_workers=2")
    (tmp_path / "mine").rename(tmp_path / "gone")
    code, said = fails(["validate", "--ckpt_path", str(trainer.run / "checkpoints/best.ckpt")], capsys)
    assert code == 2
    assert said.startswith("imgcls: no validation data")
