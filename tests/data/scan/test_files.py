"""Files are looked at once: what is remembered of them, and when they are looked at again."""

import errno
import logging
import os
import sqlite3
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from hashlib import file_digest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import imgcls.datasets.fingerprint
from imgcls.data.scan import files, parallel
from imgcls.data.scan.file_cache import FileCache, ScannedFile, Stamp
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, read_sample
from imgcls.datasets.fingerprint import fingerprint_of
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels, check_header
from tests.helpers.runs import within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 6), (number, 0, 0)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The files whose headers are read, and those whose bytes are hashed."""
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    found: list[str] = []
    hashed = FolderImageDataset.fingerprint

    def header(path: str, max_pixels: int) -> tuple[int, int]:
        found.append(f"header {os.path.basename(path)}")
        return check_header(path, max_pixels)

    def fingerprint(data: FolderImageDataset, index: int) -> str:
        found.append(f"content {Path(str(data.samples['path'].iat[index])).name}")
        return hashed(data, index)

    monkeypatch.setattr(files, "check_header", header)
    monkeypatch.setattr(FolderImageDataset, "fingerprint", fingerprint)
    return found


def test_headers_are_read_once(folder: Path, looked_at: list[str]) -> None:
    assert files.unreadable(FolderImageDataset(str(folder))) == {}
    assert sorted(looked_at) == [f"header {number}.png" for number in range(4)]
    looked_at.clear()
    assert files.unreadable(FolderImageDataset(str(folder))) == {}
    assert looked_at == []


def test_a_changed_file_is_looked_at_again(folder: Path, looked_at: list[str]) -> None:
    data = FolderImageDataset(str(folder))
    files.unreadable(data)
    before = files.fingerprints(data, range(4))
    looked_at.clear()
    (folder / "a/2.png").write_text("no image")
    assert list(files.unreadable(data).values()) == ["is a text file, not an image"]
    after = files.fingerprints(data, range(4))
    assert looked_at == ["header 2.png", "content 2.png"]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


def test_a_bad_file_is_looked_at_in_every_run(folder: Path, looked_at: list[str]) -> None:
    (folder / "a/bad.png").write_bytes(b"")
    (folder / "a/gone.png").symlink_to(folder / "nowhere")
    data = FolderImageDataset(str(folder))
    for _ in range(2):
        looked_at.clear()
        rows = files.unreadable(data)
        names = {Path(str(data.samples["path"].iat[row])).name: reason for row, reason in rows.items()}
        assert names == {"bad.png": "is empty", "gone.png": "No such file or directory"}
        assert {"header bad.png", "header gone.png"} <= set(looked_at)


def test_a_content_that_could_not_be_read_is_not_remembered(
    folder: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FolderImageDataset(str(folder))
    path = folder / "a/2.png"
    before = path.read_bytes()

    def failing(file: BinaryIO, digest: Callable[[], Any]) -> Any:
        if file.name == str(path):
            raise OSError(errno.EIO, "Input/output error")
        return file_digest(file, digest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(imgcls.datasets.fingerprint, "file_digest", failing)
        assert fingerprint_of(before) not in files.fingerprints(data, range(4))
    looked_at.clear()
    assert fingerprint_of(before) in files.fingerprints(data, range(4))
    assert looked_at == ["content 2.png"]


def test_another_limit_is_honoured(folder: Path, looked_at: list[str]) -> None:
    files.unreadable(FolderImageDataset(str(folder)))
    reasons = files.unreadable(FolderImageDataset(str(folder), max_pixels=60))
    assert list(reasons.values()) == ["has 11 x 6 pixels, more than max_pixels 60"]


def test_contents_are_hashed_once_and_keep_what_the_header_said(folder: Path, looked_at: list[str]) -> None:
    data = FolderImageDataset(str(folder))
    files.unreadable(data)
    first = files.fingerprints(data, [1, 3])
    looked_at.clear()
    assert files.fingerprints(FolderImageDataset(str(folder)), [3, 1]) == first[::-1]
    files.unreadable(data)
    assert looked_at == []


def test_a_file_that_only_seems_unchanged_is_hashed_anew(folder: Path) -> None:
    data = FolderImageDataset(str(folder))
    path = folder / "a/2.png"
    before, status = files.fingerprints(data, range(4)), path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as unpacking an archive does
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = files.fingerprints(data, range(4))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


def test_processes_read_the_headers_of_many(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parallel, "_MANY", 1)
    (folder / "b/3.png").write_bytes(b"")
    assert files.unreadable(FolderImageDataset(str(folder))) == {3: "is empty"}


def test_ledger_takes_any_name(tmp_path: Path) -> None:
    ledger = FileCache(tmp_path)
    facts = ScannedFile(Stamp(3, 4, 5), 5, 6, "content")
    paths = ["/a/ü.png", os.fsdecode(b"/a/\xff.png"), "relative.png", "/a/b'c\n.png"]
    ledger.put(dict.fromkeys(paths, facts))
    assert FileCache(tmp_path).get([*paths, "/a/unknown"]) == dict.fromkeys(paths, facts)
    assert ledger.get([os.path.abspath("relative.png")]) == {os.path.abspath("relative.png"): facts}
    assert ledger.get([]) == {}


def test_ledger_that_cannot_be_used_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    (tmp_path / "files-2.db").write_text("not a database, but a text that is long enough to look like one" * 30)
    ledger = FileCache(tmp_path)
    for _ in range(2):
        ledger.put({"/a": ScannedFile(Stamp(1, 2, 3))})
        assert ledger.get(["/a"]) == {}
    lines = [
        record.message for record in caplog.records if "images will be scanned again in each run" in record.message
    ]
    assert len(lines) == 1


@pytest.mark.parametrize("column", ["width", "mtime_ns"])
def test_rows_of_other_types_are_passed_over(folder: Path, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGCLS_CACHE", str(folder.parent / "cache"))
    data = FolderImageDataset(str(folder))
    assert files.unreadable(data) == {}
    [file] = (folder.parent / "cache").glob("files-*.db")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"UPDATE files SET {column} = 'x'")  # noqa: S608
    assert files.unreadable(data) == {}


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: path.symlink_to(path.with_name("victim"))])
def test_a_link_or_pipe_in_place_of_the_file_cache_is_not_opened(
    tmp_path: Path, plant: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    ledger = FileCache(tmp_path)
    plant(ledger.path)
    with within(10), caplog.at_level(logging.INFO, "imgcls"):
        ledger.put({"/x": ScannedFile(Stamp(1, 2, 3))})
        assert ledger.get(["/x"]) == {}
    assert "it is a link or a pipe" in caplog.text
    assert not (tmp_path / "victim").exists()


def test_a_file_that_vanishes_is_no_copy_of_another(folder: Path, looked_at: list[str]) -> None:
    """That it is gone is said when it is read."""
    data = FolderImageDataset(str(folder))
    files.unreadable(data)
    before = files.fingerprints(data, range(4))
    (folder / "a/2.png").unlink()
    after = files.fingerprints(data, range(4))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]
    assert len(set(after)) == 4


# -- classes of one's own


class OneHandle(ImageDataset):
    """Reads all samples through one open file, as tar files and databases are read, too."""

    def __init__(self, path: Path, count: int) -> None:
        path.write_bytes(b"".join(bytes([number]) * 12 for number in range(count)))
        self.samples = pd.DataFrame({"path": [f"row/{number}" for number in range(count)], "label": "a"}, dtype=object)
        self.file = path.open("rb")

    def read(self, index: int) -> Pixels:
        self.file.seek(12 * index)
        time.sleep(0.001)  # another thread would move the position now
        return np.frombuffer(self.file.read(12), np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize("joined", [False, True])
def test_a_class_of_ones_own_is_read_by_one_thread(joined: bool, folder: Path, tmp_path: Path) -> None:
    own = OneHandle(tmp_path / "rows", 40)
    data: ImageDataset = JoinedDataset([own, FolderImageDataset(str(folder))]) if joined else own
    expected = [data.fingerprint(row) for row in range(len(data.samples))]
    assert files.fingerprints(data, range(len(data.samples))) == expected
    own.file.close()


def test_files_are_read_in_threads(
    folder: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()  # what is noted is no function of imgcls
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "other"))
    readers = set()

    def digest(file: Any, hasher: Any) -> Any:
        readers.add(threading.get_ident())
        return file_digest(file, hasher)

    monkeypatch.setattr(imgcls.datasets.fingerprint, "file_digest", digest)
    files.fingerprints(JoinedDataset([FolderImageDataset(str(folder))]), range(4))
    assert readers
    assert threading.get_ident() not in readers


class Tarred(ImageDataset):
    """Reads the members of a tar file."""

    def __init__(self, path: Path) -> None:
        self.file = path
        self.samples = pd.DataFrame({"path": ["a"], "label": ["a"]}, dtype=object)

    def read(self, index: int) -> Pixels:
        with tarfile.open(self.file) as archive:
            member = archive.extractfile("a")
            assert member is not None
            return np.frombuffer(member.read(), np.uint8).reshape(64, 64, 3)


def test_a_tar_file_that_is_cut_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(64 * 64 * 3))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a", "a")
    data = Tarred(tmp_path / "a.tar")
    assert read_sample(data, 0).shape == (64, 64, 3)
    os.truncate(tmp_path / "a.tar", 2000)
    with pytest.raises(ImageError, match="a: ReadError: unexpected end of data"):
        read_sample(data, 0)


class Returning(ImageDataset):
    """Reads whatever it is given."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.samples = pd.DataFrame({"path": ["a"], "label": ["a"]}, dtype=object)

    def read(self, index: int) -> Pixels:
        return self.value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.zeros((4, 4, 3)), "float64 of shape (4, 4, 3)"),
        (np.zeros((4, 4), np.uint8), "uint8 of shape (4, 4)"),
        (np.zeros((4, 4, 1), np.uint8), "uint8 of shape (4, 4, 1)"),
        (np.zeros((3, 4, 4), np.uint8), "uint8 of shape (3, 4, 4)"),
        (Image.new("RGB", (4, 4)), "Image"),
        (None, "NoneType"),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_what_is_no_image_is_refused(value: object, what: str, joined: bool) -> None:
    data: ImageDataset = JoinedDataset([Returning(value)]) if joined else Returning(value)
    for reading in (lambda: read_sample(data, 0), lambda: files.fingerprints(data, [0])):
        with pytest.raises(ConfigError) as refused:
            reading()
        assert str(refused.value) == f"Returning.read(0) must return uint8 of shape (H, W, 3), got {what}"
