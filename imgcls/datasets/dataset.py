"""What a dataset is: a table of ids and labels, and a way to read the pixels of one."""

import os
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from imgcls.images import MAX_PIXELS, Pixels, load_image


class ImageDataset:
    """Base of every dataset class: a table of samples, and the pixels of one of them.

    A class of your own sets ``samples`` (in ``__init__``, or as a property) and, where samples are not image files,
    overrides ``read``.
    """

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a sample: ``path`` (unique text; the file's path where there is a file) and ``label`` where known."""
        raise NotImplementedError(f"{type(self).__name__} must set 'samples', a DataFrame with 'path' and 'label'")

    max_pixels = MAX_PIXELS

    @property
    def holds_files(self) -> bool:
        """Whether samples are image files."""
        return type(self).read is ImageDataset.read

    @property
    def ignored(self) -> dict[str, str]:
        """Files that are not samples by a stated rule: path -> rule."""
        return {}

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index`` of ``samples``, uint8, ``(H, W, 3)``, RGB.

        Raises:
            ImageError: If the sample cannot be read.
        """
        return load_image(str(self.samples["path"].iat[index]), self.max_pixels)

    def fingerprint(self, index: int) -> str:
        """Return a short hash of the content of row ``index``, the same wherever the sample lies."""
        path = str(self.samples["path"].iat[index])
        content = Path(path).read_bytes() if os.path.isfile(path) else self.read(index).tobytes()
        return blake2b(content, digest_size=8).hexdigest()


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
