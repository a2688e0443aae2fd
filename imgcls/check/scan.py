"""Decode, measure and hash every image, in several processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from imgcls.check.image_alignment import FINE, Square, is_flat, shrink
from imgcls.check.inputs import CheckedImage
from imgcls.check.near_duplicates import SMALLEST, perceptual_hashes
from imgcls.data.loading.workers import WatchedLoader, naming_files, note, worker_arguments
from imgcls.errors import ImageError
from imgcls.runtime.progress import tracked

_BATCH = 16
_Result = TypeVar("_Result")


class ScannedImage(NamedTuple):
    """Scan results of an image.

    ``reason`` says why it cannot be read; then the rest is empty. ``width`` and ``height`` are in pixels, ``file`` and
    ``pixels`` are digests. ``hashes`` are the perceptual hashes, ``(crops,)``, None if the image is too small
    (``tiny``) or too flat to be compared.
    """

    reason: str = ""
    width: int = 0
    height: int = 0
    file: str = ""
    pixels: str = ""
    tiny: bool = False
    hashes: NDArray[np.uint64] | None = None


def scan_image(image: CheckedImage) -> ScannedImage:
    """Decode an image, and return its scan results."""
    try:
        pixels = image.read()
    except ImageError as error:
        return ScannedImage(reason=str(error).removeprefix(f"{image.path}: "))
    height, width = pixels.shape[:2]
    digest = blake2b(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes(), digest_size=16).hexdigest()
    tiny = min(height, width) < SMALLEST
    hashes = None
    if not tiny:
        square = shrink(pixels, FINE)
        hashes = None if is_flat(square) else perceptual_hashes(square)
    return ScannedImage("", width, height, image.data.fingerprint(image.row), digest, tiny, hashes)


def read_square(image: CheckedImage) -> Square:
    """Return an image in the form in which it is compared."""
    return shrink(image.read(), FINE)


class _Mapped(Dataset[_Result], Generic[_Result]):
    """The result of a function for each image."""

    def __init__(self, images: Sequence[CheckedImage], function: Callable[[CheckedImage], _Result]) -> None:
        self.images = images
        self.function = function

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _Result:
        note(self.images[index].path)
        return self.function(self.images[index])


@dataclass(frozen=True)
class Workers:
    """The processes that read images.

    Args:
        count: Number of processes; 0 for this one.
        timeout: Seconds that a batch of images may take; 0 is unlimited.
    """

    count: int
    timeout: float


def map_images(
    function: Callable[[CheckedImage], _Result], images: Sequence[CheckedImage], workers: Workers, what: str
) -> list[_Result]:
    """Return the result of a function for each image, in order, computed by several processes.

    Args:
        function: The function.
        images: The images.
        workers: The processes.
        what: Title of the progress bar.

    Raises:
        RunError: If a process is killed or takes too long.
    """
    count = min(workers.count, len(images) // _BATCH)
    loader: WatchedLoader[Any] = WatchedLoader(
        _Mapped(images, function),
        batch_size=_BATCH,
        collate_fn=list,
        **worker_arguments(count, workers.timeout),
    )
    with naming_files():
        return [result for batch in tracked(loader, len(loader), what) for result in batch]
