"""Decode, measure and hash every image, in several processes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

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
    function: Callable[[CheckedImage], _Result], images: list[CheckedImage], workers: Workers, what: str
) -> list[_Result]:
    """Return the result of a function for each image, in order, computed by several processes.

    A progress bar says ``what`` is done.

    Raises:
        RunError: If a process is killed or takes too long.
    """
    count = min(workers.count, len(images) // _BATCH)
    loader: WatchedLoader[Any] = WatchedLoader(
        images,  # type: ignore[arg-type]  # a list will do
        batch_size=_BATCH,
        collate_fn=partial(_results, function),
        **worker_arguments(count, workers.timeout),
    )
    with naming_files():
        return [result for batch in tracked(loader, len(loader), what) for result in batch]


def _results(function: Callable[[CheckedImage], _Result], images: list[CheckedImage]) -> list[_Result]:
    results = []
    for image in images:
        note(image.path)
        results.append(function(image))
    return results
