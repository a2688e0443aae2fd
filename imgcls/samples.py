"""Where samples come from: a table of ids and labels, and a way to read the pixels of one."""

import csv
import os
import re
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from imgcls.errors import ConfigError
from imgcls.images import MAX_PIXELS, Pixels, load_image

JUNK_FILES = {"thumbs.db", "desktop.ini"}
COMPANION_SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html"}


class ImageDataset:
    """Base of every dataset class: a table of samples, and the pixels of one of them.

    A class of your own sets ``samples`` (in ``__init__``, or as a property) and, where samples are not image files,
    overrides ``read``.
    """

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a sample: ``path`` (unique text; the file's path where there is a file) and ``label`` where known."""
        raise NotImplementedError(f"{type(self).__name__} must set 'samples', a DataFrame with 'path' and 'label'")

    @property
    def ignored(self) -> dict[str, str]:
        """Files that are not samples by a stated rule: path -> rule."""
        return {}

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index`` of ``samples``, uint8, ``(H, W, 3)``, RGB.

        Raises:
            ImageError: If the sample cannot be read.
        """
        return load_image(str(self.samples["path"].iat[index]))

    def fingerprint(self, index: int) -> str:
        """Return a short hash of the content of row ``index``, the same wherever the sample lies."""
        path = str(self.samples["path"].iat[index])
        content = Path(path).read_bytes() if os.path.isfile(path) else self.read(index).tobytes()
        return blake2b(content, digest_size=8).hexdigest()


class FolderImageDataset(ImageDataset):
    """Image files under class folders: ``root/<class>/**/<file>``; or, to predict, a flat folder without classes.

    Hidden files, ``Thumbs.db``, ``desktop.ini`` and text companions (.txt, .csv, .tsv, .json, .xml, .yaml, .yml, .md,
    .html) are ignored; every other file is taken for an image, whatever its extension.

    Args:
        root: The folder that holds one folder a class.
        max_pixels: The largest width x height that is decoded; larger images are refused.
    """

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        self.root = os.path.expanduser(root)
        self.max_pixels = max_pixels

    def __fspath__(self) -> str:
        """The folder: what a checkpoint keeps of this dataset when it was made in Python."""
        return self.root

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a file, sorted by path; ``label`` is the name of the class folder, missing in a flat folder."""
        files, _ = self._scan
        below = [os.path.relpath(file, self.root).split(os.sep) for file in files]
        labels = [parts[0] if len(parts) > 1 else None for parts in below]
        if any(labels):  # loose files beside class folders have no class
            files = [file for file, label in zip(files, labels, strict=True) if label]
            labels = [label for label in labels if label]
        return pd.DataFrame({"path": files, "label": labels}, dtype=object)

    @property
    def ignored(self) -> dict[str, str]:
        """Files under ``root`` that are not samples: path -> rule."""
        files, ignored = self._scan
        used = set(self.samples["path"])
        return ignored | {file: "not inside a class folder" for file in files if file not in used}

    def read(self, index: int) -> Pixels:
        """Return the pixels of file ``index``, uint8, ``(H, W, 3)``, RGB."""
        return load_image(str(self.samples["path"].iat[index]), self.max_pixels)

    @cached_property
    def _scan(self) -> tuple[list[str], dict[str, str]]:
        if not os.path.isdir(self.root):
            raise ConfigError(f"no folder {self.root!r}; 'root' names a folder with one folder of images a class")
        return scan_folder(self.root)


class JoinedDataset(ImageDataset):
    """The samples of several datasets, one after the other.

    Args:
        parts: The datasets.
    """

    def __init__(self, parts: list[ImageDataset]) -> None:
        self.parts = parts
        self.samples = pd.concat([part.samples[["path", "label"]] for part in parts], ignore_index=True)

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index``, uint8, ``(H, W, 3)``, RGB."""
        part, place = self._find(index)
        return part.read(place)

    def fingerprint(self, index: int) -> str:
        """Return a short hash of the content of row ``index``."""
        part, place = self._find(index)
        return part.fingerprint(place)

    def _find(self, index: int) -> tuple[ImageDataset, int]:
        for part in self.parts:
            if index < len(part.samples):
                return part, index
            index -= len(part.samples)
        raise IndexError(index)


class PathListDataset(ImageDataset):
    """Unlabelled image files, one row each, in the order given.

    Args:
        paths: The files.
    """

    def __init__(self, paths: list[str]) -> None:
        self.samples = pd.DataFrame({"path": paths, "label": None}, dtype=object)


def scan_folder(root: str) -> tuple[list[str], dict[str, str]]:
    """List the files below a folder; links to folders are followed once, and last, so that a folder keeps its own name.

    Returns:
        The sorted candidate image files, and the ignored files with the rule that ignores each.
    """
    files: list[str] = []
    ignored: dict[str, str] = {}
    seen: set[str] = set()
    folders = [root]
    links: list[str] = []
    while folders or links:
        folder = (folders or links).pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            ignored[folder] = "a link to a folder that is used already"
            continue
        seen.add(real)
        for entry in _entries(folder):
            is_link = entry.is_symlink() and os.path.isdir(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False) or is_link
            if rule := _ignore_rule(entry.name, is_folder):
                ignored[entry.path] = rule
            elif is_folder:
                (links if is_link else folders).append(entry.path)
            else:
                files.append(entry.path)
    return sorted(files), ignored


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be listed: {error.strerror}") from error


def _ignore_rule(name: str, is_folder: bool) -> str:
    if name.startswith("."):
        return "hidden"
    if is_folder:
        return ""
    if name.lower() in JUNK_FILES:
        return "written by a file browser"
    if os.path.splitext(name)[1].lower() in COMPANION_SUFFIXES:
        return "a text file by its extension"
    return ""


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``class2`` before ``class10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def find_images(paths: list[str]) -> list[str]:
    """Turn files, folders (recursive) and CSV files with a ``path`` column into a sorted list, each file once.

    Paths in a CSV are relative to the CSV.

    Raises:
        ConfigError: If a path does not exist, a folder holds no file, or a CSV has no ``path`` column, no row, or a row
            without a path.
    """
    found: dict[str, str] = {}
    for path in paths:
        for file in _expand(os.path.expanduser(path)):
            found.setdefault(os.path.abspath(file), file)
    return sorted(found.values())


def _expand(path: str) -> list[str]:
    if os.path.isdir(path):
        files, _ = scan_folder(path)
        if not files:
            raise ConfigError(f"--images {path}: the folder holds no image")
        return files
    if not os.path.lexists(path):
        raise ConfigError(f"--images {path}: no such file or folder")
    if path.lower().endswith(".csv"):
        return _paths_in_csv(path)
    return [path]


def _paths_in_csv(path: str) -> list[str]:
    columns, *rows = _read_csv(path) or [[]]
    if "path" not in columns:
        raise ConfigError(f"--images {path}: has no column 'path'; it has {', '.join(map(repr, columns)) or 'none'}")
    place = columns.index("path")
    # numbered as a spreadsheet does; an empty line is no row
    files = {number: "".join(row[place : place + 1]) for number, row in enumerate(rows, 2) if row}
    if not files:
        raise ConfigError(f"--images {path}: lists no image; there is no row below the head")
    for number, file in files.items():
        if not file.strip():
            raise ConfigError(f"--images {path}: row {number} has no path; give it one, or remove the row")
    return [os.path.join(os.path.dirname(path), file) for file in files.values()]


def _read_csv(path: str) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv.reader(file))
    except (csv.Error, OSError) as error:
        raise ConfigError(f"--images {path}: cannot be read as CSV: {error}") from error
