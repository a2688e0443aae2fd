"""Process-wide settings of Pillow and libtiff, changed only while an image is read, or by a program on request."""

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

from PIL import Image


class _WhileReading:
    """Apply Pillow's settings while any thread reads an image, and restore them when the last one has finished.

    Warnings about broken metadata are hidden, since they do not concern the pixels; a decompression bomb raises.
    Pillow's limit of pixels is raised to the largest one that a reading thread allows, because some plugins (TIFF,
    WebP, ICO) check it again while they decode. Threads are counted, since ``warnings.catch_warnings`` is not
    thread-safe: the last thread to leave would restore what another one had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._former_limit: int | None = None
        self._raised_limit: int | None = None

    @contextlib.contextmanager
    def __call__(self, max_pixels: int) -> Iterator[None]:
        with self._lock:
            if self._threads == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                self._former_limit = Image.MAX_IMAGE_PIXELS
            self._threads += 1
            if Image.MAX_IMAGE_PIXELS is not None:
                Image.MAX_IMAGE_PIXELS = self._raised_limit = max(Image.MAX_IMAGE_PIXELS, max_pixels)
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._caught.__exit__(None, None, None)
                    if self._raised_limit == Image.MAX_IMAGE_PIXELS:  # otherwise the user has set it meanwhile
                        Image.MAX_IMAGE_PIXELS = self._former_limit


while_reading = _WhileReading()
"""Context manager: ``while_reading(max_pixels)``."""


def silence_decoders() -> None:
    """Keep Pillow's TIFF plugin and libtiff from writing to the terminal of this process; errors are still raised.

    For a program or a loader worker, not for a library: both settings are process-wide.
    """
    logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
    # libtiff (in Pillow 13's wheels) prints to stderr what Pillow raises as well; Pillow has no option for that
    with contextlib.suppress(OSError, AttributeError):  # Pillow linked against a libtiff of the system
        ctypes.CDLL(getattr(find_spec("PIL._imaging"), "origin", None)).TIFFSetErrorHandler(None)
