"""Image folders with one sub-folder per class."""

import logging
import os
import sys
from functools import cached_property

import pandas as pd

from imgcls.datasets.dataset import ImageDataset, PathListDataset
from imgcls.datasets.folder_scan import JUNK_FOLDER_RULE, scan_folder, subfolders
from imgcls.errors import ConfigError, did_you_mean, listed
from imgcls.images import MAX_PIXELS

log = logging.getLogger(__name__)

EMPTY = "a folder without an image"
_LOOSE = "not inside a class folder"


class FolderImageDataset(ImageDataset):
    """Image files in class folders, ``root/<class>/**/<file>``; or, for prediction, a flat folder without classes.

    The name of a class is exactly the name of its folder: ``Cat``, ``cat`` and ``cat `` are three classes, with a
    warning. Folders within a class folder belong to it. Ignored are hidden files and folders, ``Thumbs.db``,
    ``desktop.ini``, text files (.txt, .csv, .tsv, .json, .xml, .yaml, .yml, .md, .html), folders written by systems
    (``$RECYCLE.BIN``, ``System Volume Information``, ``lost+found``, ``__MACOSX``, ``@eaDir``, ``#recycle``,
    ``__pycache__``), files beside class folders, and class folders without an image. Links to files count as files; a
    link to a folder is followed once, unless that folder is used already or contains ``root``. All other files are
    expected to be images, whatever their extension.

    Args:
        root: The folder with one sub-folder per class.
        max_pixels: The largest width x height that is decoded; larger images are refused.
    """

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        self.root = os.path.expanduser(root)
        self.max_pixels = max_pixels

    def __fspath__(self) -> str:
        """The folder, which a checkpoint records for a dataset made in Python."""
        return self.root

    def __str__(self) -> str:
        return self.root

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per file, sorted by path; ``label`` is the name of the class folder, None in a flat folder."""
        return self._found[0]

    @property
    def ignored(self) -> dict[str, str]:
        """Files and folders under ``root`` that are not used: path -> rule."""
        return self._found[1]

    def unlabelled(self) -> ImageDataset:
        """Return all images without labels, including those beside class folders, for prediction."""
        images = PathListDataset(*self._scanned)
        images.max_pixels = self.max_pixels
        return images

    @cached_property
    def _scanned(self) -> tuple[list[str], dict[str, str]]:
        if not os.path.isdir(self.root):
            parent, name = os.path.split(os.path.abspath(self.root))
            hint = did_you_mean(name, map(os.path.basename, subfolders(parent)))
            raise ConfigError(
                f"Folder {self.root!r} does not exist{hint or '.'} Expected one sub-folder of images per class. "
                "If it has moved: --data.dataset_classes.train FOLDER, or validation, or test"
            )
        return scan_folder(self.root)

    @cached_property
    def _found(self) -> tuple[pd.DataFrame, dict[str, str]]:
        files, scanned = self._scanned
        ignored = dict(scanned)
        labels = _class_folders(files, self.root)
        used = {os.path.join(self.root, label) for label in set(labels) if label}
        if junk := sorted(os.path.basename(path) for path, rule in scanned.items() if rule == JUNK_FOLDER_RULE):
            log.info("%s: ignoring folders written by the system: %s", self.root, listed(junk))
        empty = sorted(subfolders(self.root) - used - ignored.keys())
        if empty:
            names = listed([os.path.basename(folder) for folder in empty])
            log.info("%s: ignoring empty class folder%s: %s", self.root, "s" * (len(empty) > 1), names)
            ignored |= dict.fromkeys(empty, EMPTY)
        if any(labels):
            loose = [file for file, label in zip(files, labels, strict=True) if not label]
            if loose:
                log.info("%s: ignoring %d files %s: %s", self.root, len(loose), _LOOSE, listed(loose, 3))
            ignored |= dict.fromkeys(loose, _LOOSE)
            files = [file for file, label in zip(files, labels, strict=True) if label]
            labels = [label for label in labels if label]
        return pd.DataFrame({"path": files, "label": labels}, dtype=object), ignored


def to_predict(data: ImageDataset) -> ImageDataset:
    """Return the images of a dataset for prediction: of a folder, also those beside class folders."""
    if type(data) is not FolderImageDataset:  # a subclass may have other samples
        return data
    images = data.unlabelled()
    return data if images.samples.empty else images  # an empty folder names the files that it ignores


def _class_folders(files: list[str], root: str) -> list[str | None]:
    """Return the folder directly below ``root`` that contains each file, None for a file in ``root`` itself."""
    start = len(os.path.join(root, ""))
    ends = (file.find(os.sep, start) for file in files)
    return [sys.intern(file[start:end]) if end > 0 else None for file, end in zip(files, ends, strict=True)]
