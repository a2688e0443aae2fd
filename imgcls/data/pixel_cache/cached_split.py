"""A split whose images are read from the pixel cache."""

import logging
from pathlib import Path

from imgcls.data.pixel_cache.build import fill
from imgcls.data.pixel_cache.cache_keys import image_names
from imgcls.data.pixel_cache.cached_transforms import CacheSteps
from imgcls.data.pixel_cache.disk_errors import naming_folder
from imgcls.data.pixel_cache.store import Reader
from imgcls.data.splitting.split import Split
from imgcls.errors import ImageError, RunError, size_in_words
from imgcls.images import Pixels

log = logging.getLogger(__name__)


class CachedSplit(Split):
    """The samples of a split, with pixels from the cache.

    Args:
        split: The samples.
        reader: Their cached pixels, by index.
        steps: The transforms before and after the cache.
        faults: Index -> reason, of unreadable samples.
    """

    def __init__(self, split: Split, reader: Reader, steps: CacheSteps, faults: dict[int, str]) -> None:
        vars(self).update(vars(split))  # all but the pixels
        self._reader = reader
        self._uncopied_width = steps.uncopied_width()
        self._faults = faults

    @property
    def faults(self) -> dict[str, str]:
        """The unreadable images: path -> reason."""
        return {self.path(index): reason for index, reason in self._faults.items()}

    def read(self, index: int, min_side: int | None = None) -> Pixels:
        """Return the cached pixels of a sample, uint8, ``(H, W, 3)``, as they are.

        Raises:
            ImageError: If the sample is unreadable.
        """
        if index in self._faults:
            raise ImageError(f"{self.path(index)}: {self._faults[index]}")
        pixels = self._reader.read(index)
        return pixels if pixels.shape[1] > self._uncopied_width else pixels.copy()


def use_cache(name: str, split: Split, steps: CacheSteps, root: Path, workers: int, timeout: float) -> CachedSplit:
    """Return a split whose images are read from the cache, after decoding the missing ones.

    Args:
        name: The split's name, for messages.
        split: The images.
        steps: The transforms before and after the cache.
        root: The folder of all caches of imgcls.
        workers: As for ``fill``.
        timeout: As for ``fill``.

    Raises:
        ConfigError: As ``fill`` does.
        RunError: As ``fill`` does, or if the folder is removed meanwhile.
    """
    log.info("cache: %s: %s", name, steps.description)
    folder = root / "pixels" / steps.key()
    names = image_names(split)
    count, faults = fill(folder, split, names, steps, workers, timeout)
    with naming_folder(folder):
        reader = Reader(folder, names)
    if any(names[index] not in faults for index in reader.missing):
        raise RunError(f"cache: {folder} was removed while it was filled; run the command again")
    unreadable = {index: faults[names[index]] for index in reader.missing}
    if count:
        cached, size = len(names) - len(unreadable), size_in_words(reader.nbytes)
        log.info("cache: %s: %s of %s images decoded now; %s in %s", name, f"{count:,}", f"{cached:,}", size, folder)
    return CachedSplit(split, reader, steps, unreadable)
