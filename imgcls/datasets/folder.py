"""Folders of images, as people have them: every file is a sample, or is left out by a stated rule."""

import logging
import os
import re
import sys
import unicodedata
from collections import deque
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd

from imgcls.datasets.dataset import ImageDataset, PathListDataset
from imgcls.errors import ConfigError, listed
from imgcls.images import MAX_PIXELS

log = logging.getLogger(__name__)

JUNK_FILES = {"thumbs.db", "desktop.ini"}
JUNK_FOLDERS = {
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__macosx",
    "@eadir",
    "#recycle",
    "__pycache__",
}
COMPANION_SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html"}

EMPTY = "a folder without an image"
_LOOSE = "not inside a class folder"
_JUNK = "a folder that a system makes"


class FolderImageDataset(ImageDataset):
    """Image files under class folders: ``root/<class>/**/<file>``; or, to predict, a flat folder without classes.

    A class is named as its folder is, to the letter; ``Cat``, ``cat`` and ``cat `` are three classes, and a line says
    so. Folders within a class folder belong to it. Hidden files and folders, ``Thumbs.db``, ``desktop.ini`` and text
    companions (.txt, .csv, .tsv, .json, .xml, .yaml, .yml, .md, .html) are left out, and so are folders that systems
    make (``$RECYCLE.BIN``, ``System Volume Information``, ``lost+found``, ``__MACOSX``, ``@eaDir``, ``#recycle``,
    ``__pycache__``), loose files beside class folders, and class folders without an image, which are no class. Links
    to files count as files; a link to a folder is followed once, and not where the folder is used already, or holds
    ``root``. Every other file is taken for an image, whatever its extension.

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

    def __str__(self) -> str:
        """Return the folder."""
        return self.root

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a file, sorted by path; ``label`` is the name of the class folder, missing in a flat folder."""
        return self._found[0]

    @property
    def ignored(self) -> dict[str, str]:
        """Files and folders under ``root`` that are not used: path -> rule."""
        return self._found[1]

    def unlabelled(self) -> ImageDataset:
        """Return all images without labels, those beside class folders among them, as they are predicted."""
        images = PathListDataset(*self._scanned)
        images.max_pixels = self.max_pixels
        return images

    @cached_property
    def _scanned(self) -> tuple[list[str], dict[str, str]]:
        if not os.path.isdir(self.root):
            raise ConfigError(
                f"no folder {self.root!r}; a folder with one folder of images a class is wanted (if it has moved: "
                "--data.dataset_classes.train FOLDER, or validation, or test)"
            )
        return scan_folder(self.root)

    @cached_property
    def _found(self) -> tuple[pd.DataFrame, dict[str, str]]:
        files, scanned = self._scanned
        ignored = dict(scanned)  # the scan's own stays as it is: loose files are predicted
        labels = _class_folders(files, self.root)
        used = {os.path.join(self.root, label) for label in set(labels) if label}
        if junk := sorted(os.path.basename(path) for path, rule in scanned.items() if rule == _JUNK):
            log.info("%s: folders that a system makes are left out: %s", self.root, listed(junk))
        empty = sorted(_folders_below(self.root) - used - ignored.keys())
        if empty:
            names = listed([os.path.basename(folder) for folder in empty])
            log.info("%s: folders without an image, which are no classes: %s", self.root, names)
            ignored |= dict.fromkeys(empty, EMPTY)
        if any(labels):  # loose files beside class folders have no class
            loose = [file for file, label in zip(files, labels, strict=True) if not label]
            if loose:
                log.info("%s: %d files %s are left out: %s", self.root, len(loose), _LOOSE, listed(loose, 3))
            ignored |= dict.fromkeys(loose, _LOOSE)
            files = [file for file, label in zip(files, labels, strict=True) if label]
            labels = [label for label in labels if label]
        return pd.DataFrame({"path": files, "label": labels}, dtype=object), ignored


def to_predict(data: ImageDataset) -> ImageDataset:
    """Return the images of a dataset as they are predicted: of a folder, those beside class folders, too.

    A class of one's own has its own samples, and ways to read them.
    """
    if type(data) is not FolderImageDataset:
        return data
    every = data.unlabelled()
    return data if every.samples.empty else every  # an empty folder says what was left out


def scan_folder(root: str) -> tuple[list[str], dict[str, str]]:
    """List the files below a folder, by their names alone: no file is opened.

    Links to folders are followed once, and last, so that a folder keeps its own name.

    Returns:
        The sorted candidate image files, and the ignored files with the rule that ignores each.

    Raises:
        ConfigError: If a folder cannot be listed.
    """
    files: list[str] = []
    ignored: dict[str, str] = {}
    seen: set[tuple[int, int]] = set()
    above = {_identity(parent) for parent in Path(os.path.realpath(root)).parents}
    folders, links = deque([root]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            identity = _identity(folder)
            if identity in seen or identity in above:
                ignored[folder] = f"a link to a folder {'that is used already' if identity in seen else 'above'}"
                continue
            seen.add(identity)
            below, linked = _sort_out(folder, files, ignored)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be listed: {error.strerror}") from error
        folders.extend(below)
        links.extend(linked)
    return sorted(files), ignored


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _sort_out(folder: str, files: list[str], ignored: dict[str, str]) -> tuple[list[str], list[str]]:
    """Add the files of one folder to the files or to the ignored; return its folders, and its links to folders."""
    folders: list[str] = []
    links: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_link = _is_link_to_folder(entry)
            is_folder = is_link or _is_folder(entry)
            if rule := _ignore_rule(entry.name, is_folder):
                ignored[entry.path] = rule
            elif is_folder:
                (links if is_link else folders).append(entry.path)
            else:
                files.append(entry.path)
    return sorted(folders), sorted(links)


def _ignore_rule(name: str, is_folder: bool) -> str:
    if name.startswith("."):
        return "hidden"
    if is_folder:
        return _JUNK if name.lower() in JUNK_FOLDERS else ""
    if name.lower() in JUNK_FILES:
        return "written by a file browser"
    if os.path.splitext(name)[1].lower() in COMPANION_SUFFIXES:
        return "a text file by its extension"
    return ""


def _class_folders(files: list[str], root: str) -> list[str | None]:
    """Return the folder directly below ``root`` that each file lies in, None for a loose file; one text a folder."""
    start = len(os.path.join(root, ""))
    ends = (file.find(os.sep, start) for file in files)
    return [sys.intern(file[start:end]) if end > 0 else None for file, end in zip(files, ends, strict=True)]


def _folders_below(root: str) -> set[str]:
    with os.scandir(root) as entries:
        return {entry.path for entry in entries if _is_folder(entry) or _is_link_to_folder(entry)}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_link_to_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and os.path.isdir(entry.path)  # entry.is_dir() raises on a link that loops


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``class2`` before ``class10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case, surrounding blanks or the Unicode form of a letter."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).strip().casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
