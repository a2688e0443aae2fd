"""Datasets of the Hugging Face ``datasets`` library."""

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from typing import Any, BinaryIO

import pandas as pd

from imgcls.datasets.dataset import ImageDataset
from imgcls.errors import ConfigError, ImageError, first_line, known_names, listed
from imgcls.images import MAX_PIXELS, Pixels, decode_image, load_image

log = logging.getLogger(__name__)

_SAVED = ("state.json", "dataset_dict.json")  # written by save_to_disk
_LABEL = "label"


class HubImageDataset(ImageDataset):
    """A dataset of Hugging Face ``datasets``: an id on the Hub, a local folder, or a ``.parquet`` file.

    A folder may have been written by ``save_to_disk``, or contain parquet files or class folders of images, which the
    library copies into its own cache. Other columns of texts or numbers are kept in ``samples``.

    Args:
        name: The id, the folder or the file.
        split: The split, for example ``train``; null if there is only one.
        image_column: The column of images; null if there is only one.
        label_column: The column of labels; null is the only column of class labels, else the column ``label``.
        config: The configuration, if the dataset on the Hub has several.
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
        _library()  # an error now if it is not installed

    def __str__(self) -> str:
        return self.name

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per image: ``path`` is ``<name>/<split>/<number>``; label if known, and other plain columns."""
        split = self.split or self._rows.split or "all"
        paths = [f"{self.name}/{split}/{number:06d}" for number in range(len(self._rows))]
        values = dict(self._rows.select_columns(self._plain_columns)[:]) if self._plain_columns else {}
        label = self._choose_label()
        labels = [None] * len(paths) if label is None else self._class_names(label, values.pop(label))
        others = {name: column for name, column in values.items() if name not in {"path", "label"}}
        return pd.DataFrame({"path": paths, "label": labels} | others, dtype=object)

    def read(self, index: int) -> Pixels:
        """Return the pixels of image ``index``, uint8, ``(H, W, 3)``, RGB."""
        return self._decode(index)

    def read_scaled(self, index: int, min_side: int) -> Pixels:
        """Return the pixels of image ``index``; a JPEG may be decoded smaller, as by ``load_image``."""
        return self._decode(index, min_side)

    def _decode(self, index: int, min_side: int | None = None) -> Pixels:
        content, file = self._stored(index)
        if content is None:
            return load_image(file, self.max_pixels, min_side)
        return decode_image(content, self.sample_paths[index], self.max_pixels, min_side)

    def _open_encoded(self, index: int) -> BinaryIO:
        content, file = self._stored(index)
        return open(file, "rb") if content is None else BytesIO(content)

    def _stored(self, index: int) -> tuple[bytes | None, str]:
        """Return the bytes of an encoded image, or None and the file that contains them."""
        stored = self._images[index][self._image] or {}
        if stored.get("bytes") is None and not stored.get("path"):
            raise ImageError(f"{self.sample_paths[index]}: the row has no image")
        return stored.get("bytes"), stored.get("path") or ""

    @cached_property
    def _rows(self) -> Any:
        """The split, a ``datasets.Dataset``."""
        for key, value in (("config", self.config), ("revision", self.revision)):
            if value is not None and (self._is_saved or os.path.isfile(self.name)):
                raise ConfigError(f"{self.name}: {key!r} must be null for local files, got {value}")
        try:
            loaded = self._load()
        except (_library().exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{self.name}: cannot be loaded: {first_line(error)}; 'name' must be a dataset on the Hub, a local "
                "folder or a .parquet file"
            ) from error
        if not isinstance(loaded, Mapping):
            return self._check_split(loaded)
        split = next(iter(loaded)) if self.split is None and len(loaded) == 1 else self.split
        if split not in loaded:
            raise ConfigError(f"{self.name}: 'split' is {self.split}; the splits are {listed(list(loaded))}")
        return loaded[split]

    @property
    def _is_saved(self) -> bool:
        """Whether save_to_disk wrote the folder."""
        return os.path.isdir(self.name) and any(os.path.isfile(os.path.join(self.name, mark)) for mark in _SAVED)

    def _load(self) -> Any:
        if self._is_saved:
            return _library().load_from_disk(self.name)
        if os.path.isfile(self.name):
            return _library().load_dataset("parquet", data_files=self.name, split=self.split)
        return _library().load_dataset(self.name, self.config, split=self.split, revision=self.revision)

    def _check_split(self, rows: Any) -> Any:
        """Check the name of a single split."""
        found = "" if rows.split is None else str(rows.split)
        if self._is_saved:  # load_from_disk ignores slices, for example train[:10%]
            fits = self.split in {None, found}
        else:
            fits = self.split is None or self.split.startswith(found.split("[")[0])
        if not fits:
            only = f"the only split is {found}" if found else "there is a single split without a name; leave it out"
            raise ConfigError(f"{self.name}: 'split' is {self.split}; {only}")
        return rows

    @cached_property
    def _images(self) -> Any:
        """The column of images, encoded."""
        try:
            return self._rows.select_columns([self._image]).cast_column(self._image, _library().Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"{self.name}: no images in the column {self._image!r}: {first_line(error)}") from error

    @cached_property
    def _image(self) -> str:
        found = self._columns_of(_library().Image)
        return self._choose("image_column", self.image_column, found) or self._refuse("image_column", found)

    def _choose_label(self) -> str | None:
        found = self._columns_of(_library().ClassLabel) or [name for name in (_LABEL,) if name in self._plain_columns]
        if column := self._choose("label_column", self.label_column, found):
            return column if column in self._plain_columns else self._refuse("label_column", found)
        if found:
            self._refuse("label_column", found)
        names = listed(self._columns)
        hint = "; for multi-label datasets use imgcls.CsvImageDataset" * (_LABEL in self._columns)
        log.info("%s: no column of labels, so the images are unlabelled; the columns are %s%s", self.name, names, hint)
        return None

    def _choose(self, key: str, given: str | None, found: list[str]) -> str | None:
        if given is not None and given not in self._columns:
            raise ConfigError(f"{self.name}: {key}: no column {given!r}{known_names(given, self._columns)}")
        return given or (found[0] if len(found) == 1 else None)

    def _refuse(self, key: str, found: list[str]) -> str:
        candidates = listed(found) or f"none; the columns are {listed(self._columns)}"
        raise ConfigError(f"{self.name}: {key}: choose a column; the candidates are {candidates}")

    @property
    def _columns(self) -> list[str]:
        return list(self._rows.features)

    def _columns_of(self, kind: type) -> list[str]:
        return [name for name, feature in self._rows.features.items() if isinstance(feature, kind)]

    @property
    def _plain_columns(self) -> list[str]:
        """The columns of texts, numbers and class labels."""
        simple = self._columns_of(_library().Value) + self._columns_of(_library().ClassLabel)
        return [name for name in simple if "binary" not in self._rows.features[name].dtype and name != self._image]

    def _class_names(self, column: str, values: list[Any]) -> list[str | None]:
        names = getattr(self._rows.features[column], "names", None)
        if names is None:
            return [None if value is None else str(value) for value in values]
        return [None if value is None or value < 0 else names[value] for value in values]  # -1: unknown


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"imgcls.HubImageDataset needs the package datasets: pip install 'imgcls[hub]' ({first_line(error)})"
        ) from error
    return datasets
