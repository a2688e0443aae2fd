"""Folders of images, as people have them: every file is a sample, or is left out by a stated rule."""

import os
import re
from functools import cached_property

import pandas as pd

from imgcls.datasets.dataset import ImageDataset
from imgcls.errors import ConfigError
from imgcls.images import MAX_PIXELS

JUNK_FILES = {"thumbs.db", "desktop.ini"}
COMPANION_SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html"}


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

    @cached_property
    def _scan(self) -> tuple[list[str], dict[str, str]]:
        if not os.path.isdir(self.root):
            raise ConfigError(f"no folder {self.root!r}; 'root' names a folder with one folder of images a class")
        return scan_folder(self.root)


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
