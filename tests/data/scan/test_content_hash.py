"""By what images are told apart: all bytes, size and both ends, or the path; and that kinds are never mixed."""

import json
import logging
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import imgcls.datasets.fingerprint
from imgcls.checkpoints.content import data_state
from imgcls.cli.main import main
from imgcls.data.pixel_cache.cache_keys import image_names
from imgcls.data.scan.files import HashKind, fingerprints
from imgcls.data.splitting.split_report import file_report, split_table
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, PathListDataset
from imgcls.datasets.huggingface import HubImageDataset
from imgcls.datasets.webdataset_local import ShardImageDataset
from imgcls.errors import ConfigError
from tests.data.test_datamodule import module
from tests.data.test_datamodule_reuse import paths
from tests.helpers.runs import arguments, fails, load

SIDE = 300  # of BMPs of 270 kB, whose ends are 128 kB of it


def write_bmp(path: Path, place: int | None = None, value: int = 255) -> Path:
    """A grey picture, one pixel of which, counted along the rows, is another one."""
    pixels = np.full((SIDE * SIDE, 3), 100, np.uint8)
    if place is not None:
        pixels[place] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.reshape(SIDE, SIDE, 3)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """One that differs from the first at its end, one at its start, two in between."""
    places = {"same": None, "end": 0, "start": SIDE * SIDE - 1, "middle": SIDE * SIDE // 2, "other": SIDE * SIDE // 2}
    return [str(write_bmp(tmp_path / f"p/{name}.bmp", at, 200 + len(name))) for name, at in places.items()]


def test_what_each_kind_tells_apart(pictures: list[str], tmp_path: Path) -> None:
    data = PathListDataset(pictures)
    full, sampled, none = (fingerprints(data, range(5), kind) for kind in ("full", "sampled", "none"))
    assert len(set(full)) == len(set(none)) == 5
    assert len(set(sampled)) == 3
    assert sampled[0] == sampled[3] == sampled[4]
    assert not {*full} & {*sampled}
    Path(pictures[3]).write_bytes(Path(pictures[3]).read_bytes() + b"\0")  # another size
    assert fingerprints(data, [3], "sampled") != [sampled[3]]


def test_kinds_are_remembered_apart(pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = PathListDataset(pictures)
    before = [fingerprints(data, range(5), kind) for kind in ("full", "sampled")]
    for name in ("fingerprint", "sampled_fingerprint"):
        monkeypatch.setattr(PathListDataset, name, lambda data, index: pytest.fail("read again"))
    assert [fingerprints(data, range(5), kind) for kind in ("full", "sampled")] == before


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_a_file_has_the_same_hash_wherever_it_lies(kind: HashKind, pictures: list[str], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, path in enumerate(pictures):
            tar.add(path, f"{number}.bmp")
    rows = {"image": [{"bytes": Path(path).read_bytes(), "path": None} for path in pictures]}
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict(rows, features).cast_column("image", datasets.Image()).to_parquet(tmp_path / "a.parquet")
    files: ImageDataset = PathListDataset(pictures)
    shards = ShardImageDataset(str(tmp_path / "a.tar"), label_key=None)
    hub = HubImageDataset(str(tmp_path / "a.parquet"))
    expected = fingerprints(files, range(5), kind)
    for data in (shards, hub, JoinedDataset([files])):
        assert fingerprints(data, range(5), kind) == expected


# -- none


def test_none_reads_nothing_and_says_what_is_not_looked_for(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(imgcls.datasets.fingerprint, "file_digest", None)
    caplog.set_level(logging.INFO, "imgcls")
    data = module(str(photos), validation=str(photos), content_hash="none")
    data.splitter.refuse_leaks()
    assert caplog.text.count("content_hash: none: copies of an image, leaks between splits and images that") == 1
    assert set(split_table(data.splitter)["content"]) == {""}
    assert file_report(data.splitter)["content_hash"] == "none"


def test_none_still_keeps_groups_apart(photos: Path) -> None:
    data = module(str(photos), validation=str(photos), content_hash="none", group_regex=r"(\d+)\.png")
    with pytest.raises(ConfigError, match="the same image or group is in two splits"):
        data.splitter.refuse_leaks()


def test_none_keeps_the_split_by_path_below_the_root(photos: Path, tmp_path: Path) -> None:
    first = module(str(photos), content_hash="none")
    moved = shutil.copytree(photos, tmp_path / "moved")
    again = module(str(moved), "validate")
    again.load_state_dict(first.state_dict())
    names = {str(Path(path).relative_to(photos)) for path in paths(first, "validation")}
    assert {str(Path(path).relative_to(moved)) for path in paths(again, "validation")} == names
    assert len(names) == 12


def test_none_has_no_names_for_the_cache(photos: Path) -> None:
    with pytest.raises(ConfigError, match="content_hash must be full or sampled with create_dataset: true"):
        module(str(photos), content_hash="none", create_dataset=True)
    with pytest.raises(ConfigError, match="content_hash must be full, sampled or none, got fast"):
        module(str(photos), content_hash="fast")


# -- sampled


def test_images_of_the_same_ends_have_their_own_pixels_in_the_cache(tmp_path: Path) -> None:
    for name, place in (("a/0", 0), ("b/0", 1), ("a/1", SIDE * SIDE // 2), ("b/1", SIDE * SIDE // 2 + 1)):
        write_bmp(tmp_path / f"images/{name}.bmp", place)
    data = module(str(tmp_path / "images"), validation=str(tmp_path / "images"), content_hash="sampled")
    split = data.split("validation")
    assert len(set(split.fingerprints)) == 3  # two pass for copies
    assert len(set(image_names(split))) == 4


def test_a_record_says_its_kind_and_is_compared_by_it(photos: Path, tmp_path: Path) -> None:
    first = module(str(photos), content_hash="sampled")
    state = first.state_dict()
    assert state["content_hash"] == "sampled"
    test = shutil.copytree(photos / "red", tmp_path / "test/red").parent
    again = module(str(photos), "test", test=str(test))  # full by itself
    again.load_state_dict(state)
    with pytest.raises(ConfigError, match="the checkpoint was trained on 16 of these 20 images"):
        again.test_dataloader()
    assert again.state_dict()["content_hash"] == "sampled"
    assert paths(again, "validation") == paths(first, "validation")


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_weights_that_a_run_begins_with_are_compared_by_their_kind(
    kind: HashKind, photos: Path, test_photos: Path
) -> None:
    state = module(str(photos), content_hash=kind).state_dict()
    data = module(str(test_photos), test=str(photos), content_hash="sampled" if kind == "full" else "full")
    data.splitter.set_weights_record(state)
    with pytest.raises(ConfigError, match="test: the checkpoint was trained on 48 of these 60 images"):
        data.splitter.refuse_leaks()


def test_an_older_checkpoint_has_full_hashes(photos: Path) -> None:
    state = module(str(photos)).state_dict()
    del state["content_hash"]
    data = module(str(photos), content_hash="sampled")
    data.load_state_dict(state)
    data.setup("fit")
    assert data.state_dict() == state | {"content_hash": "full"}


def test_a_kind_that_nobody_knows_is_refused(photos: Path) -> None:
    data = module(str(photos))
    with pytest.raises(ConfigError, match="content_hash must be full, sampled or none, got 'fast'"):
        data.load_state_dict(data.state_dict() | {"content_hash": "fast"})


def test_a_run_goes_on_with_its_kind(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--data.content_hash=sampled")
    main(["fit", *line])
    folder = tmp_path / "run/version_0"
    assert json.loads((folder / "data.json").read_text())["content_hash"] == "sampled"
    assert set(pd.read_csv(folder / "splits.csv")["content"].str.len()) == {16}
    last = folder / "checkpoints/last.ckpt"
    assert data_state(load(last))["content_hash"] == "sampled"
    main(["validate", f"--ckpt_path={last}"])
    code, message = fails(["validate", f"--ckpt_path={last}", "--data.content_hash=full"], capsys)
    assert (code, "leave --data.content_hash out" in message) == (2, True)
    more = [*line[:-2], "--trainer.max_epochs=2", "--ckpt_path=last"]
    code, message = fails(["fit", *more], capsys)
    assert code == 2
    assert "content_hash: full differs from sampled in" in message
    main(["fit", *more, "--data.content_hash=sampled"])
    assert len(pd.read_csv(folder / "metrics.csv")) == 2
