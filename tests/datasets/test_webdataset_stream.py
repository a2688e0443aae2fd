"""A stream of shards: as many batches as its length says, and what it cannot promise is said."""

import functools
import json
import re
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from imgcls import StreamImageDataset
from imgcls.errors import ConfigError, RunError
from tests.conftest import COLOURS
from tests.datasets.test_webdataset_local import BOMBS, HARMS, harmed, pack, pack_photos, png
from tests.datasets.test_webdataset_local import whole as whole
from tests.helpers.runs import fails, load
from tests.helpers.ways_in import Spec, Trainer
from tests.helpers.ways_in import trainer as trainer


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of the 60 photos, 0.tar to 3.tar."""
    folder = tmp_path_factory.mktemp("shards")
    pack_photos(photos, str(folder / "{}.tar"), 4)
    return folder


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    """The shards behind a URL."""
    handler = functools.partial(_Silent, directory=str(shards))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def stream(urls: str | list[str], **options: Any) -> Spec:
    arguments = {"class_names": sorted(COLOURS), "length": 60, "label_key": "json", "label_field": "what", "shuffle": 8}
    return {"class_path": "imgcls.StreamImageDataset", "init_args": {"urls": urls} | arguments | options}


def test_stream_yields_each_image_once_a_round_in_another_order(shards: Path) -> None:
    data = StreamImageDataset(**stream(f"file:{shards}/{{0..3}}.tar")["init_args"])
    taken = [[image.path for image, _ in zip(data.images(seed, 0, 1), range(120), strict=False)] for seed in (1, 1, 2)]
    assert taken[0] == taken[1] != taken[2]
    assert len(set(taken[0][:60])) == len(set(taken[0])) == 60
    assert taken[0][:60] != taken[0][60:]
    assert all(re.fullmatch(rf"file:{shards}/\d.tar/(red|green|blue)_0\d\d", path) for path in taken[0])
    first = next(iter(data.images(1, 0, 1)))
    assert first.path.rpartition("/")[2].startswith(first.label)
    assert data.decode(first).shape[2] == 3


def test_stream_shares_the_shards_out(shards: Path) -> None:
    data = StreamImageDataset(**stream([str(shards / "{0..1}.tar"), str(shards / "{2..3}.tar")])["init_args"])
    parts = [{image.path for image, _ in zip(data.images(5, part, 2), range(30), strict=False)} for part in (0, 1)]
    assert len(parts[0] | parts[1]) == 60


def test_stream_names_numbers_and_refuses_other_labels(tmp_path: Path) -> None:
    members = {"README.md": b"", "1.png": png("red"), "1.cls": b"1", "2.png": png("red"), "2.cls": b"cat"}
    url = pack(tmp_path / "0.tar", members)
    data = StreamImageDataset(url, ["cat", "dog"], 2, shuffle=1)
    assert [image.label for image, _ in zip(data.images(0, 0, 1), range(2), strict=False)] == ["dog", "cat"]
    with pytest.raises(ConfigError, match=r"0.tar/2: the label must be an index of class_names, 0 to 1, got 'cat'"):
        list(zip(StreamImageDataset(url, ["x", "y"], 2, shuffle=1).images(0, 0, 1), range(2), strict=False))
    pack(tmp_path / "0.tar", {"1.png": png("red"), "1.txt": b""})
    with pytest.raises(ConfigError, match=r"0.tar/1: expected one image and a label cls, got the members png"):
        next(data.images(0, 0, 1))
    pack(tmp_path / "0.tar", {"README.md": b""})
    with pytest.raises(ConfigError, match=r"0.tar: no image in the 1 shards of a loader process"):
        next(data.images(0, 0, 1))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1", "2", "3"], "class_names: '1' is at index 0, so a label '1' could mean two classes"),
        (["cat", "dog", "cat"], "class_names has 'cat' twice"),
    ],
)
def test_stream_refuses_names_that_could_be_mistaken(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamImageDataset("file:0.tar", names, length=1)
    assert StreamImageDataset("file:0.tar", ["0", "1", "7"], length=1).class_names == ["0", "1", "7"]


def test_stream_names_a_shard_that_cannot_be_read(tmp_path: Path, server: str) -> None:
    (tmp_path / "0.tar").write_text("no tar" * 999)
    for url in (str(tmp_path / "0.tar"), str(tmp_path / "1.tar"), f"{server}/9.tar", "nowhere://x"):
        with pytest.raises(RunError, match=f"^{url}: cannot be read: "):
            next(StreamImageDataset(url, ["a", "b"], 2).images(0, 0, 1))


@pytest.mark.parametrize(("how", "position"), HARMS.items())
def test_stream_names_a_shard_that_is_cut_or_damaged(whole: bytes, tmp_path: Path, how: str, position: int) -> None:
    (tmp_path / "0.tar").write_bytes(harmed(whole, how))
    images = StreamImageDataset(f"file:{tmp_path}/0.tar", ["a", "b"], 31, shuffle=1).images(0, 0, 1)
    with pytest.raises(RunError, match=rf"0\.tar: cannot be read: damaged or truncated near byte {position:,}: "):
        list(islice(images, 32))


@pytest.mark.parametrize("bomb", BOMBS)
def test_stream_refuses_what_would_fill_the_memory(tmp_path: Path, bomb: str) -> None:
    content, message = BOMBS[bomb]
    (tmp_path / "0.tar").write_bytes(content + bytes(2 * 512))
    images = StreamImageDataset(f"file:{tmp_path}/0.tar", ["a", "b"], 31).images(0, 0, 1)
    said = re.escape(message.removeprefix("1: ").replace("an uncompressed", "a"))
    tracemalloc.start()
    try:
        with pytest.raises((ConfigError, RunError), match=said):
            next(images)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_stream_says_how_to_install_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError, match=r"needs the package webdataset: pip install 'imgcls\[webdataset\]'"):
        StreamImageDataset("x", ["a", "b"], 1)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"^x: length must be at least 1, got 0$"):
        StreamImageDataset("x", ["a", "b"], 0)


# -- through the command


def test_stream_trains_and_says_what_it_cannot_promise(
    trainer: Trainer, server: str, test_photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = stream(f"{server}/{{0..3}}.tar")
    table = trainer.fit(train, "--data.num_workers=2", validation=str(test_photos))
    assert float(table["accuracy"][-1]) > 0.6
    said = [message for message in caplog.messages if message.startswith("train is a stream: no stratified split")]
    assert len(said) == 1
    assert "no stratified split" in said[0]
    checkpoint = load(trainer.run / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 6 * (60 // 8)
    state = checkpoint["ImageDataModule"]
    assert state["class_names"] == sorted(COLOURS)
    assert {name: len(contents) for name, contents in state["split"].items()} == {"train": 0, "validation": 18}
    assert "accuracy" in trainer.evaluate("validate")
    start = f"--ckpt_path={trainer.run}/checkpoints/last.ckpt"
    more = trainer.fit(train, start, "--trainer.max_epochs=7", validation=str(test_photos))
    assert more.keys() == table.keys()
    later = load(trainer.run.with_name("version_1") / "checkpoints/last.ckpt")
    assert later["global_step"] == 7 * (60 // 8)


def test_stream_leaves_bad_images_out_by_policy(
    trainer: Trainer, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {f"{number}.png": png(colour) for number, colour in enumerate(["red", "lime", "blue"] * 4)}
    labels = {f"{number}.cls": name.encode() for number, name in enumerate(["red", "green", "blue"] * 4)}
    members = sorted((good | labels | {"5.png": b"text"}).items())
    train = stream(pack(tmp_path / "0.tar", members), label_key="cls", label_field=None, length=16)
    trainer.fit(train, "--data.on_bad_image=skip", "--data.max_bad_fraction=0.1", validation=str(test_photos))
    found = json.loads((trainer.run / "data.json").read_text())
    assert found["unused"] == [{"path": f"{tmp_path}/0.tar/5", "reason": "is a text file, not an image"}]
    with pytest.raises(SystemExit):
        trainer.fit(train, validation=str(test_photos))
    assert f"{tmp_path}/0.tar/5: is a text file, not an image" in capsys.readouterr().err


def test_streams_bad_images_are_a_share_of_all_that_its_epochs_show(
    trainer: Trainer, test_photos: Path, tmp_path: Path
) -> None:
    """An epoch shows one shard, in each of which one image of eight cannot be read; two of eight would be too many."""
    colours = [("red", "red"), ("green", "lime"), ("blue", "blue")] * 3
    for shard in range(6):
        images = {f"{shard}{place}.png": png(colours[place][1]) for place in range(8)} | {f"{shard}5.png": b"text"}
        labels = {f"{shard}{place}.cls": colours[place][0].encode() for place in range(8)}
        pack(tmp_path / f"{shard}.tar", sorted((images | labels).items()))
    train = stream(str(tmp_path / "{0..5}.tar"), label_key="cls", label_field=None, length=8)
    more = ["--data.on_bad_image=skip", "--data.max_bad_fraction=0.2", "--trainer.max_epochs=6"]
    trainer.fit(train, *more, validation=str(test_photos))
    assert len(json.loads((trainer.run / "data.json").read_text())["unused"]) > 1


@pytest.mark.parametrize(
    ("limit", "message"),
    [(0.1, "3 of 16 images in train cannot be read"), (1.0, "train: none of the images could be read, see data.json")],
)
def test_stream_of_bad_images_alone_ends(
    limit: float, message: str, trainer: Trainer, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [(f"{number}.{kind}", b"red") for number in range(3) for kind in ("cls", "png")]
    train = stream(pack(tmp_path / "0.tar", members), label_key="cls", label_field=None, length=16)
    more = ["--data.on_bad_image=skip", f"--data.max_bad_fraction={limit}", "--data.class_names=[red,green,blue]"]
    with pytest.raises(SystemExit):
        trainer.fit(train, *more, validation=str(test_photos))
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "dataset_classes.train: a stream cannot be split; give dataset_classes.validation"),
        (
            ["--data.dataset_classes.test=STREAM"],
            "dataset_classes.test: a stream can only be used for train; give another",
        ),
        (["VALIDATION", "--data.train_on_validation=true"], "a stream cannot be joined with validation; remove"),
        (["VALIDATION", "--data.create_dataset=true"], "create_dataset cannot be used with a stream"),
        (["VALIDATION", "--trainer.overfit_batches=1"], "trainer.overfit_batches cannot be used with a stream"),
        (["VALIDATION", "--data.batch_size=61"], "length must be at least 61, one batch per process, got 60"),
        (
            ["VALIDATION", "--data.class_names=[red,green,blue]"],
            "train: classes 'grey' are not among the model's",
        ),
    ],
)
def test_stream_is_refused_where_it_cannot_be_used(
    more: list[str], message: str, trainer: Trainer, shards: Path, test_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = json.dumps(stream(str(shards / "{0..3}.tar"), class_names=[*COLOURS, "grey"]))
    words = {"VALIDATION": f"--data.dataset_classes.validation={test_photos}"}
    options = [words.get(option, option.replace("STREAM", train)) for option in more]
    line = ["fit", f"--data.dataset_classes.train={train}", f"--model.model_name={trainer.model}"]
    code, said = fails([*line, "--model.pretrained=false", *options], capsys)
    assert (code, message in said) == (2, True), said


def test_stream_of_an_epoch_holds_each_image_about_once(trainer: Trainer, shards: Path, test_photos: Path) -> None:
    from imgcls.data.config import Augmentations, DatasetClasses
    from imgcls.data.datamodule import ImageDataModule

    crop = [{"class_path": "albumentations.CenterCrop", "init_args": {"height": 32, "width": 32}}]
    data = StreamImageDataset(**stream(str(shards / "{0..3}.tar"))["init_args"])
    module = ImageDataModule(
        DatasetClasses(train=data, validation=str(test_photos)), Augmentations(crop, crop), 6, num_workers=2
    )
    module.setup("fit")
    loader = module.train_dataloader()
    paths = Counter(path for batch in loader for path in batch["path"])
    assert len(loader) == 10
    assert paths.total() == 60
    assert len(paths) == 60
