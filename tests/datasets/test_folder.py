"""Folders as people have them, with every file accounted for; and what any dataset can do."""

import logging
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imgcls.data.splitting.class_labels import class_names_of
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, PathListDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.folder_scan import scan_folder
from imgcls.datasets.image_paths import find_images
from imgcls.datasets.labels import look_alikes, natural_order
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from tests.conftest import write_class_folders


def touch(root: Path, *names: str) -> Path:
    """Empty files below a folder; what is in them does not matter to a scan."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def below(root: Path, paths: list[str]) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def rows(data: ImageDataset, root: Path) -> list[tuple[str, str | None]]:
    return list(zip(below(root, list(data.samples["path"])), data.samples["label"], strict=True))


def ignored(data: ImageDataset, root: Path) -> dict[str, str]:
    return {os.path.relpath(path, root): rule for path, rule in data.ignored.items()}


# -- FolderImageDataset


def test_folder_dataset_labels_nested_files_by_the_class_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/deep/er/2.png", "dog/3.jpg", "dog/noextension")
    assert rows(FolderImageDataset(str(tmp_path)), tmp_path) == [
        ("cat/1.jpg", "cat"),
        ("cat/deep/er/2.png", "cat"),
        ("dog/3.jpg", "dog"),
        ("dog/noextension", "dog"),
    ]


def test_folder_dataset_accounts_for_every_file(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "loose.jpg", "a/Thumbs.db", "b/desktop.ini", "a/.DS_Store", ".git/config")
    touch(tmp_path, "a/1.txt", "a/1.XML", "labels.csv", "README.md")
    data = FolderImageDataset(str(tmp_path))
    assert rows(data, tmp_path) == [("a/1.jpg", "a"), ("b/2.jpg", "b")]
    assert ignored(data, tmp_path) == {
        "loose.jpg": "not inside a class folder",
        "a/Thumbs.db": "written by a file browser",
        "b/desktop.ini": "written by a file browser",
        "a/.DS_Store": "hidden",
        ".git": "hidden",
        "a/1.txt": "a text file by its extension",
        "a/1.XML": "a text file by its extension",
        "labels.csv": "a text file by its extension",
        "README.md": "a text file by its extension",
    }


def test_folder_dataset_names_folders_without_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.jpg", "texts/notes.txt", "hidden/.1.jpg", "files/1.jpg", ".git/config")
    (tmp_path / "empty/deep").mkdir(parents=True)
    (tmp_path / "again").symlink_to("cat")
    with caplog.at_level(logging.INFO, "imgcls"):
        data = FolderImageDataset(str(tmp_path))
        assert set(data.samples["label"]) == {"cat", "files"}
    empty = {name: rule for name, rule in ignored(data, tmp_path).items() if rule == "a folder without an image"}
    assert set(empty) == {"empty", "hidden", "texts"}
    said = f"{tmp_path}: ignoring empty class folders: 'empty', 'hidden', 'texts'"
    assert caplog.messages == [said]


def test_folders_of_systems_are_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "dog/@eaDir/2.jpg", ".ipynb_checkpoints/1.jpg", "new/3.jpg")
    junk = ["$RECYCLE.BIN", "@eaDir", "__MACOSX", "lost+found", "System Volume Information", "#recycle", "__pycache__"]
    touch(tmp_path, *(f"{name}/1.jpg" for name in junk))
    with caplog.at_level(logging.INFO, "imgcls"):
        data = FolderImageDataset(str(tmp_path))
        assert set(data.samples["label"]) == {"cat", "dog", "new"}
    left_out = [name for name, rule in ignored(data, tmp_path).items() if rule == "a folder written by the system"]
    assert sorted(left_out) == sorted([*junk, "dog/@eaDir"])
    [said] = caplog.messages
    assert said.startswith(f"{tmp_path}: ignoring folders written by the system: '#recycle', '$RECYCLE.BIN', ")


def test_folder_dataset_lists_a_pipe_and_opens_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a/2.jpg")
    data = FolderImageDataset(str(tmp_path))
    assert [path for path, _ in rows(data, tmp_path)] == ["a/1.jpg", "a/2.jpg"]
    with pytest.raises(ImageError, match=r"a/2.jpg: is not a regular file \(a pipe, socket or device\)"):
        data.read(1)


def test_folder_dataset_keeps_classes_that_look_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = ["cat", "Cat", "cat ", "dog", composed, decomposed]
    touch(tmp_path, *(f"{name}/1.jpg" for name in names))
    data = FolderImageDataset(str(tmp_path))
    assert set(data.samples["label"]) == set(names)
    assert sorted(map(set, look_alikes(names)), key=len) == [{composed, decomposed}, {"cat", "Cat", "cat "}]
    assert set(class_names_of(data)) == set(names)
    message = "train: classes that differ only in case, blanks or Unicode form: "
    assert caplog.messages == [f"{message}'Cat', 'cat', 'cat '", f"{message}'{decomposed}', '{composed}'"]


def test_folder_dataset_orders_numbers_by_value(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/1.jpg" for name in ("10", "9", "100", "1")))
    assert class_names_of(FolderImageDataset(str(tmp_path))) == ["1", "9", "10", "100"]


def test_scan_folder_names_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigError, match="b: cannot be listed: Permission denied"):
        scan_folder(str(tmp_path))


def test_samples_of_any_class_may_be_files(tmp_path: Path) -> None:
    class Mine(ImageDataset):
        def __init__(self, path: Path) -> None:
            self.samples = pd.DataFrame({"path": [str(path)], "label": ["x"], "patient": [7]})

    class Drawn(Mine):
        def read(self, index: int) -> Pixels:
            return np.zeros((2, 2, 3), np.uint8)

    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    files, drawn = Mine(tmp_path / "a.png"), Drawn(tmp_path / "b.png")
    assert files.holds_files
    assert not drawn.holds_files
    files.max_pixels = 19
    with pytest.raises(ImageError, match="5 x 4 pixels, more than max_pixels 19"):
        files.read(0)
    assert JoinedDataset([files, Mine(tmp_path / "c.png")]).holds_files
    joined = JoinedDataset([drawn, files, FolderImageDataset(str(touch(tmp_path / "root", "y/1.jpg")))])
    assert not joined.holds_files
    assert joined.samples["patient"].isna().to_list() == [False, False, True]
    assert list(joined.samples["label"]) == ["x", "x", "y"]
    assert str(files) == "Mine"


def test_folder_dataset_takes_folders_of_any_name_for_classes(tmp_path: Path) -> None:
    touch(tmp_path, "config.json/1.jpg", "thumbs.db/2.jpg")
    assert [label for _, label in rows(FolderImageDataset(str(tmp_path)), tmp_path)] == ["config.json", "thumbs.db"]


def test_folder_dataset_reads_a_flat_folder_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "2.jpg", "1.jpg", "notes.txt")
    data = FolderImageDataset(str(tmp_path))
    assert rows(data, tmp_path) == [("1.jpg", None), ("2.jpg", None)]
    assert ignored(data, tmp_path) == {"notes.txt": "a text file by its extension"}


def test_folder_dataset_keeps_odd_names(tmp_path: Path) -> None:
    names = ["a,b \n'c'/x,1.jpg", "ünï/ö \t.jpg", os.fsdecode(b"\xff\xfe/\xe9.jpg")]
    touch(tmp_path, *names)
    data = FolderImageDataset(str(tmp_path))
    assert sorted(path for path, _ in rows(data, tmp_path)) == sorted(names)
    assert set(data.samples["label"]) == {"a,b \n'c'", "ünï", os.fsdecode(b"\xff\xfe")}
    assert all(os.path.isfile(path) for path in data.samples["path"])


def test_folder_dataset_names_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Folder '.*nowhere' does not exist.* Expected one sub-folder of images per class"
    ):
        _ = FolderImageDataset(str(tmp_path / "nowhere")).samples


def test_folder_dataset_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fspath(FolderImageDataset("~/photos")) == str(tmp_path / "photos")


def test_folder_dataset_reads_within_max_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / "a.png")
    assert FolderImageDataset(str(tmp_path)).read(0)[3, 4].tolist() == [1, 2, 3]
    with pytest.raises(ImageError, match="5 x 4 pixels, more than max_pixels 19"):
        FolderImageDataset(str(tmp_path), max_pixels=19).read(0)


# -- links


def test_scan_folder_ends_on_link_loops(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "b/self").symlink_to("self")
    files, left_out = scan_folder(str(tmp_path))
    assert below(tmp_path, files) == ["a/1.jpg", "b/2.jpg", "b/self"]  # the last one is refused when it is read
    assert left_out == {str(tmp_path / "a/up"): "a link to a folder that is used already"}


def test_a_link_to_a_folder_above_brings_no_images_of_other_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_class_folders(tmp_path / split, 2, seed=len(split))
    (tmp_path / "train/red/up").symlink_to(tmp_path)
    data = FolderImageDataset(str(tmp_path / "train"))
    assert len(data.samples) == 6
    assert data.ignored == {str(tmp_path / "train/red/up"): "a link to a folder above"}


def test_scan_folder_counts_a_linked_folder_under_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/deep/2.jpg")
    (tmp_path / "z").symlink_to("a")
    (tmp_path / "0").symlink_to("a/deep")
    data = FolderImageDataset(str(tmp_path))
    assert rows(data, tmp_path) == [("a/1.jpg", "a"), ("a/deep/2.jpg", "a")]
    assert set(ignored(data, tmp_path)) == {"0", "z"}


def test_scan_folder_follows_links_to_elsewhere_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/sub/1.jpg", "root/own/2.jpg")
    for name in ("first", "second"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    files, left_out = scan_folder(str(tmp_path / "root"))
    assert below(tmp_path / "root", files) == ["first/sub/1.jpg", "own/2.jpg"]
    assert below(tmp_path / "root", list(left_out)) == ["second"]


# -- natural_order


def test_natural_order_sorts_numbers_by_value() -> None:
    names = ["class10", "class2", "10", "9", "b", "a1b10", "a1b9", "", "1a"]
    assert sorted(names, key=natural_order) == ["", "1a", "9", "10", "a1b9", "a1b10", "b", "class2", "class10"]


def test_natural_order_does_not_depend_on_the_order_given() -> None:
    one_order = sorted(["1", "01", "001", "x", "X"], key=natural_order)
    assert one_order == sorted(["X", "01", "x", "001", "1"], key=natural_order)


# -- find_images


def test_find_images_sorts_and_takes_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "d/2.jpg", "d/1.jpg", "d/.hidden", "other.png")
    monkeypatch.chdir(tmp_path)
    found = find_images(["other.png", "d", "d/1.jpg", str(tmp_path / "d"), "./other.png"])
    assert found == ["d/1.jpg", "d/2.jpg", "other.png"]


def test_find_images_says_what_it_ignores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "1.jpg", "sub/notes.txt", "sub/2.jpg", ".hidden")
    with caplog.at_level(logging.INFO):
        assert below(tmp_path, find_images([str(tmp_path)])) == ["1.jpg", "sub/2.jpg"]
    names = "'.hidden (hidden)', 'sub/notes.txt (a text file by its extension)'"
    assert caplog.messages == [f"{tmp_path}: ignoring {names}"]


def test_find_images_reads_paths_relative_to_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = tmp_path / "abs.jpg"
    names = [b"sub/a.jpg", b'"with,comma and\nnewline.jpg"', b"caf\xe9.jpg", os.fsencode(absolute)]
    rows = b"".join(name + b",cat\n" for name in names)
    (tmp_path / "list.csv").write_bytes("\ufeffpath,label\n".encode() + rows)
    monkeypatch.chdir("/")
    expected = ["sub/a.jpg", "with,comma and\nnewline.jpg", os.fsdecode(b"caf\xe9.jpg"), "abs.jpg"]
    assert set(find_images([str(tmp_path / "list.csv")])) == {str(tmp_path / name) for name in expected}


def test_find_images_takes_the_path_column_of_uneven_rows(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.jpg,cat,\nb.jpg\n")  # a comma too many, a value too few
    assert below(tmp_path, find_images([str(tmp_path / "list.csv")])) == ["a.jpg", "b.jpg"]


def test_find_images_names_what_is_wrong(tmp_path: Path) -> None:
    touch(tmp_path, "empty/notes.txt", "empty.csv")
    (tmp_path / "list.csv").write_text("file,label\na.jpg,x\n")
    (tmp_path / "head.csv").write_text("path,label\n")
    (tmp_path / "gap.csv").write_text('path,label\n"a\nb.jpg",x\n\n,y\n')
    (tmp_path / "short.csv").write_text("label,path\nx,a.jpg\nx\n")
    (tmp_path / "blank.csv").write_text('path\n" "\n')
    wrong = {
        "head.csv": "head.csv: no image; there is no row below the header",
        "gap.csv": "gap.csv: row 4 has no path; add one, or remove the row",
        "short.csv": "short.csv: row 3 has no path",
        "blank.csv": "blank.csv: row 2 has no path",
        "missing.jpg": "missing.jpg: no such file or folder",
        "empty": "empty: the folder contains no image",
        "list.csv": "list.csv: no column 'path'; the columns are 'file', 'label'",
        "empty.csv": "empty.csv: no column 'path'; the columns are none",
    }
    for name, message in wrong.items():
        with pytest.raises(ConfigError, match=f"--images .*{message}"):
            find_images([str(tmp_path / name)])


def test_find_images_keeps_a_dangling_link_for_the_report(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("nothing")
    assert find_images([str(tmp_path / "link.jpg")]) == [str(tmp_path / "link.jpg")]


# -- ImageDataset


def test_path_list_dataset_keeps_the_order_given(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "z.png")
    data = PathListDataset([str(tmp_path / "z.png"), "a.png"])
    assert list(data.samples["path"]) == [str(tmp_path / "z.png"), "a.png"]
    assert data.samples["label"].isna().all()
    assert data.read(0)[0, 0].tolist() == [9, 8, 7]


def test_dataset_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "c.png").write_bytes(b"other")
    data = FolderImageDataset(str(tmp_path))
    assert data.fingerprint(0) == data.fingerprint(1)
    assert data.fingerprint(2) == blake2b(b"other", digest_size=8).hexdigest()


def test_dataset_class_without_samples_says_what_it_needs() -> None:
    class Mine(ImageDataset):
        pass

    with pytest.raises(NotImplementedError, match="Mine must set 'samples', a DataFrame with 'path' and 'label'"):
        _ = Mine().samples
    assert Mine().ignored == {}
