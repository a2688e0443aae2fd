"""Tar shards in WebDataset's layout: indexed once, read in place."""

import io
import json
import logging
import os
import random
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgcls import ShardImageDataset
from imgcls.datasets.shard_index import MemberKeys, index_shard
from imgcls.datasets.webdataset_local import expand_range
from imgcls.errors import ConfigError, ImageError
from imgcls.images import load_image
from tests.helpers.runs import within
from tests.helpers.ways_in import Trainer, assert_learned_and_found_again
from tests.helpers.ways_in import trainer as trainer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], mode: Any = "w") -> str:
    with tarfile.open(path, mode) as shard:
        for name, content in members.items() if isinstance(members, dict) else members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            shard.addfile(header, io.BytesIO(content))
    return str(path)


def pack_photos(root: Path, pattern: str, shards: int) -> None:
    """Shards of the pictures below a folder, one class after the other in each."""
    files = sorted(root.rglob("*.png"))
    for number in range(shards):
        members: dict[str, bytes] = {}
        for file in files[number::shards]:
            key = f"{file.parent.name}_{file.stem}"
            members |= {f"{key}.png": file.read_bytes(), f"{key}.json": json.dumps({"what": file.parent.name}).encode()}
        pack(Path(pattern.format(number)), members)


def refusal(data: ShardImageDataset) -> str:
    with pytest.raises(ConfigError) as caught:
        _ = data.samples
    return str(caught.value)


def test_shard_dataset_finds_images_and_labels(tmp_path: Path) -> None:
    first = pack(
        tmp_path / "a-0.tar", {"1.png": png("red"), "1.cls": b"cat\n", "d/2.PNG": png("blue"), "d/2.cls": b"7"}
    )
    second = pack(tmp_path / "a-1.tar", [("1.cls", b"dog"), ("1.seg.png", b"no image of ours"), ("1.png", png("lime"))])
    data = ShardImageDataset(str(tmp_path / "a-*.tar"))
    assert data.samples.to_dict("list") == {
        "path": [f"{first}/1", f"{first}/d/2", f"{second}/1"],
        "label": ["cat", "7", "dog"],
    }
    assert [data.read(row)[1, 2].tolist() for row in range(3)] == [[255, 0, 0], [0, 0, 255], [0, 255, 0]]
    assert not data.holds_files


def test_a_shard_in_two_spellings_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "a.tar", {"1.png": png("red"), "1.cls": b"cat"})
    monkeypatch.chdir(tmp_path)
    assert list(ShardImageDataset(["a.tar", "./a.tar", str(tmp_path / "*.tar")]).samples["path"]) == ["a.tar/1"]


def test_shard_dataset_fingerprints_are_those_of_files(tmp_path: Path, photos: Path) -> None:
    from imgcls import FolderImageDataset

    files = FolderImageDataset(str(photos))
    pack_photos(photos, str(tmp_path / "{}.tar"), 1)
    data = ShardImageDataset(str(tmp_path / "0.tar"), "json", "what")
    assert [data.fingerprint(row) for row in range(60)] == [files.fingerprint(row) for row in range(60)]
    assert np.array_equal(data.read(7), load_image(files.samples["path"][7]))


def test_shard_dataset_names_numbers(tmp_path: Path) -> None:
    shard = pack(tmp_path / "0.tar", {"1.png": png("red"), "1.cls": b"1", "2.png": png("red"), "2.cls": b"0"})
    data = ShardImageDataset(shard, class_names=["cat", "dog"])
    assert list(data.samples["label"]) == ["dog", "cat"]
    said = f"{shard}: 1: the label must be an index of class_names, 0 to 0, got '1'"
    assert refusal(ShardImageDataset(shard, class_names=["cat"])) == said


def test_shard_dataset_without_labels(tmp_path: Path) -> None:
    data = ShardImageDataset(pack(tmp_path / "0.tar", {"1.png": png("red"), "1.txt": b"a"}), label_key=None)
    assert data.samples["label"].isna().all()


def test_shard_dataset_accounts_for_members_of_no_sample(tmp_path: Path) -> None:
    members = {
        "1.png": png("red"),
        "1.cls": b"a",
        "1.txt": b"belongs to 1",
        "README.md": b"",
        "LICENSE": b"",
        ".x.png": b"",
    }
    shard = pack(tmp_path / "0.tar", members)
    rule = "neither an image nor a label, by its extension"
    assert ShardImageDataset(shard).ignored == {f"{shard}/{name}": rule for name in ("LICENSE", ".x.png", "README.md")}


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([("1.png", b"x")], {}, "1: no label 1.cls; 'label_key' sets the extension"),
        (
            [("1.cls", b"x"), ("1.txt", b"")],
            {},
            "1: no image among cls, txt; 'image_keys' sets the extensions of images",
        ),
        (
            [("1.png", b"x"), ("1.jpg", b"x"), ("1.cls", b"x")],
            {},
            "1: expected one image, got '1.png' and '1.jpg'; 'image_keys' sets",
        ),
        ([("1.cls", b"x"), ("1.png", b"x"), ("1.cls", b"x")], {}, "1: the member '1.cls' is there twice"),
        ([("1.cls", b" ")], {}, "1: the label must be a text or a whole number, got ''"),
        ([("1.cls", b"\xff")], {}, "1: the label cannot be read: 'utf-8' codec"),
        ([("1.json", b"{")], {"label_key": "json"}, "1: the label cannot be read: Expecting property name"),
        ([("1.json", b'{"a": 1}')], {"label_key": "json"}, "1: 'label_field' is None; the label has the fields 'a'"),
        (
            [("1.json", b'{"a": 1.5}')],
            {"label_key": "json", "label_field": "a"},
            "1: the label must be a text or a whole number, got 1.5",
        ),
    ],
)
def test_shard_dataset_names_shard_and_key(
    members: list[tuple[str, bytes]], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    shard = pack(tmp_path / "0.tar", members)
    assert refusal(ShardImageDataset(shard, **options)).startswith(f"{shard}: {message}")  # type: ignore[arg-type]


def test_shard_dataset_refuses_what_is_no_plain_tar(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no tar" * 999)
    pack(tmp_path / "packed.tar", {"1.png": png("red"), "1.cls": b"a"}, "w:gz")
    for name in ("text.tar", "packed.tar"):
        said = refusal(ShardImageDataset(str(tmp_path / name)))
        assert said.startswith(f"{tmp_path / name}: cannot be read as an uncompressed tar file: ")


@pytest.mark.parametrize("content", [b'{"key": [1]}', b'{"key": ["1"], "offset": ["x"]}', None])
def test_an_index_of_other_types_or_a_pipe_is_passed_over(tmp_path: Path, cache: Path, content: bytes | None) -> None:
    shard = pack(tmp_path / "0.tar", {"1.png": png("red"), "1.cls": b"a"})
    read = list(ShardImageDataset(shard).samples["label"])
    [file] = cache.iterdir()
    if content is None:
        file.unlink()
        os.mkfifo(file)
    else:
        values = json.loads(file.read_bytes()) | json.loads(content)
        file.write_text(json.dumps(values))
    with within(10):
        assert list(ShardImageDataset(shard).samples["label"]) == read
        assert ShardImageDataset(shard).read(0).shape == (2, 3, 3)


def harmed(content: bytes, how: str) -> bytes:
    """Cut or damage a shard of 31 samples; its members take 1,024 bytes each, and start with image 0."""
    start = 16 * 2 * 1024  # of the header of image 16
    if how == "cut between members":
        return content[:start]
    if how == "cut within a header":
        return content[: start + 200]
    if how == "cut within an image":
        return content[: start + 512 + 20]
    if how == "cut within the end mark":
        return content[: 62 * 1024 + 512]
    if how == "without an end mark":
        return content[: 62 * 1024]
    damaged = bytearray(content)
    if how == "a byte of a header":
        damaged[start + 3] ^= 1
    elif how == "a block of zeros":
        damaged[start : start + 512] = bytes(512)
    elif how == "several blocks of zeros":
        damaged[start : start + 4096] = bytes(4096)
    elif how == "another shard behind it":
        damaged += content
    return bytes(damaged)


HARMS = {
    "cut between members": 32_768,
    "cut within a header": 32_768,
    "cut within an image": 33_792,
    "cut within the end mark": 63_488,
    "without an end mark": 63_488,
    "a byte of a header": 32_768,
    "a block of zeros": 32_768,
    "several blocks of zeros": 32_768,
    "another shard behind it": 63_488,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shard of 31 samples."""
    names = [f"{number:02}.{extension}" for number in range(31) for extension in ("png", "cls")]
    contents = {name: png("red") if name.endswith("png") else b"ab"[int(name[:2]) % 2 :][:1] for name in names}
    return Path(pack(tmp_path_factory.mktemp("shard") / "0.tar", contents)).read_bytes()


@pytest.mark.parametrize(("how", "position"), HARMS.items())
def test_shard_dataset_names_a_shard_that_is_cut_or_damaged(
    whole: bytes, tmp_path: Path, how: str, position: int
) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(whole)
    assert len(ShardImageDataset(str(path)).samples) == 31
    path.write_bytes(harmed(whole, how))
    assert refusal(ShardImageDataset(str(path))).startswith(f"{path}: damaged or truncated near byte {position:,}: ")


@pytest.mark.parametrize("seed", range(5))
def test_shard_dataset_never_loses_a_sample_without_a_word(whole: bytes, tmp_path: Path, seed: int) -> None:
    """Cut a shard anywhere, or flip a bit of a header: it is refused, or all samples are there."""
    chance = random.Random(seed)
    path = tmp_path / "0.tar"
    for _ in range(40):
        content = bytearray(whole)
        if chance.random() < 0.5:
            del content[chance.randrange(62 * 1024 + 1024) :]
        else:
            content[chance.randrange(62) * 1024 + chance.randrange(512)] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with suppress(ConfigError):
            assert len(ShardImageDataset(str(path)).samples) == 31


def sparse(name: str, size: int) -> bytes:
    """A GNU header of a file of any size that holds nothing but a hole."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    return checked(header)


def beside(size: int) -> bytes:
    """A header that says that a pax header of so many bytes follows."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, size
    return header.tobuf(tarfile.GNU_FORMAT)


def larger(name: str, size: int) -> bytes:
    """A member of one block that says in a pax header that it has so many bytes."""
    header = tarfile.TarInfo(name)
    header.pax_headers = {"size": str(size)}
    return header.tobuf(tarfile.PAX_FORMAT) + bytes(512)


def checked(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


BOMBS = {
    "sparse label": (sparse("1.cls", 200 * 10**9), "1: 1.cls is stored as a sparse file"),
    "sparse image": (sparse("1.png", 200 * 10**9), "1: 1.png is stored as a sparse file"),
    "pax label": (
        larger("1.cls", 99 * 10**9),
        "1: the label 1.cls must have at most 1,048,576 bytes, got 99,000,000,000",
    ),
    "pax image": (larger("1.png", 99 * 10**9), "damaged or truncated near byte"),
    "negative size": (larger("1.cls", -1024), "damaged or truncated near byte"),
    "pax header": (
        beside(8 * 10**9),
        "cannot be read as an uncompressed tar file: a name or header must have at most 1,048,576 bytes, got 8,000",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_shard_dataset_refuses_what_would_fill_the_memory(tmp_path: Path, bomb: str) -> None:
    content, message = BOMBS[bomb]
    path = tmp_path / "0.tar"
    path.write_bytes(content + bytes(2 * 512))
    tracemalloc.start()
    try:
        assert refusal(ShardImageDataset(str(path))).startswith(f"{path}: {message}")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_shard_dataset_counts_shards(tmp_path: Path) -> None:
    assert expand_range("a-{08..10}-{0..1}") == ["a-08-0", "a-08-1", "a-09-0", "a-09-1", "a-10-0", "a-10-1"]
    assert expand_range("{0..9{0..1}9}") == ["{0..909}", "{0..919}"]  # and not a thousand
    shards = [pack(tmp_path / f"{n:02d}.tar", {"1.png": b"x", "1.cls": b"a"}) for n in range(2)]
    assert list(ShardImageDataset(str(tmp_path / "{00..01}.tar")).samples["path"]) == [f"{s}/1" for s in shards]
    assert list(ShardImageDataset(shards[::-1]).samples["path"]) == [f"{s}/1" for s in shards[::-1]]
    assert refusal(ShardImageDataset(str(tmp_path / "{00..02}.tar"))).startswith(f"{tmp_path}/02.tar: no such shard")
    assert refusal(ShardImageDataset(str(tmp_path / "*.zip"))).startswith(f"{tmp_path}/*.zip: no such shard")
    assert "imgcls.StreamImageDataset" in refusal(ShardImageDataset("https://x/0.tar"))


def test_shard_dataset_names_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    shard = pack(tmp_path / "0.tar", {"1.png": b"no image", "1.cls": b"a", "2.png": png("red"), "2.cls": b"a"})
    data = ShardImageDataset(shard, max_pixels=5)
    with pytest.raises(ImageError, match=f"^{shard}/1: is a text file, not an image$"):
        data.read(0)
    with pytest.raises(ImageError, match=f"^{shard}/2: has 3 x 2 pixels, more than max_pixels 5$"):
        data.read(1)
    os.truncate(shard, 600)
    with pytest.raises(ImageError, match=f"^{shard}/2: the shard is truncated within it$"):
        data.read(1)
    Path(shard).unlink()
    with pytest.raises(ImageError, match=f"^{shard}/1: No such file or directory$"):
        data.read(0)


# -- what is remembered


def test_an_index_is_remembered_until_the_shard_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed = []
    real = index_shard

    def index(path: str, parts: MemberKeys) -> Any:
        indexed.append(Path(path).name)
        return real(path, parts)

    monkeypatch.setattr("imgcls.datasets.shard_index.index_shard", index)
    shard = pack(tmp_path / "0.tar", {"1.png": png("red"), "1.cls": b"a", "x": b""})
    made, found = ShardImageDataset(shard), ShardImageDataset(shard)
    assert made.samples.equals(found.samples)
    assert made.ignored == found.ignored
    assert found.read(0)[0, 0].tolist() == [255, 0, 0]
    assert indexed == ["0.tar"]
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    assert list(ShardImageDataset(shard, label_key=None).samples["label"]) == [None]  # other members, another index
    pack(tmp_path / "0.tar", {"1.png": png("red"), "1.cls": b"b"})
    assert list(ShardImageDataset(shard).samples["label"]) == ["b"]
    assert len(indexed) == 3
    for file in cache.iterdir():
        file.write_text("{}")
    assert list(ShardImageDataset(shard).samples["label"]) == ["b"]


def test_a_shard_whose_time_was_set_back_is_indexed_anew(tmp_path: Path) -> None:
    shard = pack(tmp_path / "0.tar", {"1.png": png("red"), "1.cls": b"a"})
    assert list(ShardImageDataset(shard).samples["label"]) == ["a"]
    before = os.stat(shard)
    pack(tmp_path / "0.tar", {"1.png": png("red"), "1.cls": b"b"})
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (os.stat(shard).st_size, os.stat(shard).st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert list(ShardImageDataset(shard).samples["label"]) == ["b"]


def test_an_index_that_cannot_be_remembered_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "file"))
    shard = pack(tmp_path / "0.tar", {"1.png": b"x", "1.cls": b"a"})
    with caplog.at_level(logging.INFO, "imgcls"):
        assert len(ShardImageDataset(shard).samples) == 1
    assert caplog.messages[0].endswith(
        "cannot be written (Not a directory): the shard will be indexed again in each run"
    )


# -- through the command


def test_shards_train_and_the_checkpoint_finds_them_again(
    trainer: Trainer, photos: Path, test_photos: Path, tmp_path: Path
) -> None:
    pack_photos(photos, str(tmp_path / "train-{:03d}.tar"), 3)
    pack_photos(test_photos, str(tmp_path / "test.tar"), 1)
    train, test = (
        {
            "class_path": "imgcls.ShardImageDataset",
            "init_args": {"shards": shards, "label_key": "json", "label_field": "what"},
        }
        for shards in ("train-{000..002}.tar", ["test.tar"])
    )
    assert_learned_and_found_again(trainer, train, test)
    rows = (trainer.run / "splits.csv").read_text().splitlines()
    assert len(rows) == 1 + 60 + 18
    assert any(row.startswith(f"{tmp_path}/train-000.tar/blue_000,blue,") for row in rows)


def test_workers_read_shards(trainer: Trainer, photos: Path, tmp_path: Path) -> None:
    pack_photos(photos, str(tmp_path / "{}.tar"), 2)
    arguments = {"shards": str(tmp_path / "*.tar"), "label_key": "json", "label_field": "what"}
    spec = {"class_path": "imgcls.ShardImageDataset", "init_args": arguments}
    alone = trainer.fit(spec)
    assert trainer.fit(spec, "--data.num_workers=2") == alone
