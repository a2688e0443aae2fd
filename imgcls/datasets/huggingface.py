"""Datasets of the Hugging Face library: of the Hub, or of files in its formats."""

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from imgcls.datasets.dataset import ImageDataset, fingerprint_of, fingerprint_of_ends, fingerprint_of_id
from imgcls.errors import ConfigError, ImageError, first_line, known_names, listed
from imgcls.images import MAX_PIXELS, Pixels, decode_image, load_image

log = logging.getLogger(__name__)

_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk writes
_LABEL = "label"


class HubImageDataset(ImageDataset):
    """A dataset of Hugging Face ``datasets``: its id on the Hub, a folder of this machine, or a ``.parquet`` file.

    A folder may be what ``save_to_disk`` wrote, or hold parquet files or class folders of images, which the library
    copies into its own cache. Columns beside image and label that hold texts or numbers are kept in ``samples``.

    Args:
        name: The id, the folder or the file.
        split: Such as ``train``; null where there is only one.
        image_column: The column of images; null where there is only one of that kind.
        label_column: The column of labels; null is the one of class labels, else the one called ``label``.
        config: The configuration, where the Hub's dataset has several.
        revision: The version on the Hub: a branch, tag or commit; null is the newest.
        max_pixels: The largest width x height that is decoded; larger images are refused.
    """

    def __init__(
        self,
        name: str,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.name = os.path.expanduser(name)
        self.split = split
        self.image_column = image_column
        self.label_column = label_column
        self.config = config
        self.revision = revision
        self.max_pixels = max_pixels
        _library()  # where it is not installed, that is said at once

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row an image: ``path`` is ``<name>/<split>/<number>``; label where known, and the other plain columns."""
        split = self.split or self._rows.split or "all"
        paths = [f"{self.name}/{split}/{number:06d}" for number in range(len(self._rows))]
        values = self._plain_values()
        label = self._choose_label()
        labels = [None] * len(paths) if label is None else self._texts(label, values.pop(label))
        others = {name: column for name, column in values.items() if name not in {"path", "label"}}
        return pd.DataFrame({"path": paths, "label": labels} | others, dtype=object)

    def read(self, index: int) -> Pixels:
        """Return the pixels of image ``index``, uint8, ``(H, W, 3)``, RGB."""
        content, file = self._stored(index)
        if content is None:
            return load_image(file, self.max_pixels)
        return decode_image(content, self.sample_paths[index], self.max_pixels)

    def fingerprint(self, index: int) -> str:
        """Return a short hash of the bytes of image ``index``; of its id where there are none, as reading says."""
        try:
            content, file = self._stored(index)
            return fingerprint_of(Path(file).read_bytes() if content is None else content)
        except (ImageError, OSError):
            return fingerprint_of_id(self.sample_paths[index])

    def sampled_fingerprint(self, index: int) -> str:
        """Return a short hash of the size and of both ends of image ``index``."""
        try:
            content, file = self._stored(index)
            with open(file, "rb") if content is None else BytesIO(content) as opened:
                return fingerprint_of_ends(opened, os.path.getsize(file) if content is None else len(content))
        except (ImageError, OSError):
            return fingerprint_of_id(self.sample_paths[index])

    def _stored(self, index: int) -> tuple[bytes | None, str]:
        """Return the bytes of an image, or None and the file that holds them."""
        stored = self._images[index][self._image] or {}
        if stored.get("bytes") is None and not stored.get("path"):
            raise ImageError(f"{self.sample_paths[index]}: the row holds no image")
        return stored.get("bytes"), stored.get("path") or ""

    # -- the library's side

    @cached_property
    def _rows(self) -> Any:
        """The split, as the library holds it."""
        for key, value in (("config", self.config), ("revision", self.revision)):
            if value is not None and (self._is_saved or os.path.isfile(self.name)):
                raise ConfigError(f"{self.name}: {key!r} is {value}; files of this machine have none, leave it out")
        try:
            loaded = self._load()
        except (_library().exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{self.name}: cannot be loaded: {first_line(error)}; 'name' is a dataset of the Hub, or a folder or a "
                ".parquet file of this machine"
            ) from error
        if not isinstance(loaded, Mapping):
            return self._only(loaded)
        split = next(iter(loaded)) if self.split is None and len(loaded) == 1 else self.split
        if split not in loaded:
            raise ConfigError(f"{self.name}: 'split' is {self.split}; there are {listed(list(loaded))}")
        return loaded[split]

    @property
    def _is_saved(self) -> bool:
        """Whether save_to_disk wrote it."""
        return os.path.isdir(self.name) and any(os.path.isfile(os.path.join(self.name, mark)) for mark in _SAVED)

    def _load(self) -> Any:
        if self._is_saved:
            return _library().load_from_disk(self.name)
        if os.path.isfile(self.name):
            return _library().load_dataset("parquet", data_files=self.name, split=self.split)
        return _library().load_dataset(self.name, self.config, split=self.split, revision=self.revision)

    def _only(self, rows: Any) -> Any:
        """Check the split of what was loaded or saved as a single one."""
        found = "" if rows.split is None else str(rows.split)
        if self._is_saved:  # as a whole: of ``train[:10%]`` nothing is cut
            fits = self.split in {None, found}
        else:
            fits = self.split is None or self.split.startswith(found.split("[")[0])
        if not fits:
            raise ConfigError(f"{self.name}: 'split' is {self.split}; there is only {found or 'one, leave it out'}")
        return rows

    @cached_property
    def _images(self) -> Any:
        """The images alone, not decoded."""
        try:
            return self._rows.select_columns([self._image]).cast_column(self._image, _library().Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError(
                f"{self.name}: the column {self._image!r} holds no images: {first_line(error)}"
            ) from error

    @cached_property
    def _image(self) -> str:
        found = self._columns_of(_library().Image)
        return self._choose("image_column", self.image_column, found) or self._refuse("image_column", found)

    def _choose_label(self) -> str | None:
        found = self._columns_of(_library().ClassLabel) or [name for name in (_LABEL,) if name in self._plain]
        if column := self._choose("label_column", self.label_column, found):
            return column if column in self._plain else self._refuse("label_column", found)
        if found:
            self._refuse("label_column", found)
        there = listed(self._columns)
        hint = "; of several labels an image, imgcls.CsvImageDataset alone reads lists" * (_LABEL in self._columns)
        log.info("%s: no column of labels, so the images have none; it has %s%s", self.name, there, hint)
        return None

    def _choose(self, key: str, given: str | None, found: list[str]) -> str | None:
        if given is not None and given not in self._columns:
            raise ConfigError(f"{self.name}: {key}: no column {given!r}{known_names(given, self._columns)}")
        return given or (found[0] if len(found) == 1 else None)

    def _refuse(self, key: str, found: list[str]) -> str:
        candidates = listed(found) or f"none of that kind, only {listed(self._columns)}"
        raise ConfigError(f"{self.name}: {key}: name one; there are {candidates}")

    @property
    def _columns(self) -> list[str]:
        return list(self._rows.features)

    def _columns_of(self, kind: type) -> list[str]:
        return [name for name, feature in self._rows.features.items() if isinstance(feature, kind)]

    @property
    def _plain(self) -> list[str]:
        """The columns of texts, numbers and class labels."""
        simple = self._columns_of(_library().Value) + self._columns_of(_library().ClassLabel)
        return [name for name in simple if "binary" not in self._rows.features[name].dtype and name != self._image]

    def _plain_values(self) -> dict[str, list[Any]]:
        return dict(self._rows.select_columns(self._plain)[:]) if self._plain else {}

    def _texts(self, column: str, values: list[Any]) -> list[str | None]:
        names = getattr(self._rows.features[column], "names", None)
        if names is None:
            return [None if value is None else str(value) for value in values]
        return [None if value is None or value < 0 else names[value] for value in values]  # -1: not known


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"imgcls.HubImageDataset needs the package datasets: pip install 'imgcls[hub]' ({first_line(error)})"
        ) from error
    return datasets
