"""Which image formats are read, and what a file is when it is none of them."""

import codecs
import contextlib
import ctypes
import logging
import re
import struct
import threading
import warnings
from importlib.util import find_spec
from typing import BinaryIO

from PIL import Image, ImageFile

from imgcls.images.headers import Unreadable

# Not among them: EPS, which Pillow hands to Ghostscript, and formats that hold no pixels of their own.
_FORMATS = ["AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]

# what a plugin raises on a header that it cannot use
_NOT_MINE = (OSError, ValueError, SyntaxError, LookupError, TypeError, RuntimeError, AssertionError, struct.error)

_START = 1024  # bytes that tell what a file is

# what a folder of images holds besides images, by how it begins; the first that fits
_STRANGERS = {
    rb"\0+\Z": "holds zeros where an image begins",
    rb"version https://git-lfs": "is a pointer of Git LFS, not an image; type: git lfs pull",
    rb"(?i)\s*(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)": "is an HTML page, not an image",
    rb"(?s)\s*(\xef\xbb\xbf)?\s*(<\?xml.*)?<svg": "is an SVG drawing, not an image of pixels",
    rb"(?s)....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)": "is a HEIC photo, which is not supported; convert it to JPEG",
    rb"(?s)....ftyp(?!avi[fs])|\x1a\x45\xdf\xa3|RIFF....AVI ": "is a video, not an image",
    rb"%PDF": "is a PDF document, not an image",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf": "is an archive, not an image",
    rb"8BPS": "is a Photoshop document, which is not supported",
    rb"%!PS": "is a PostScript document, not an image",
}
_PLAIN_TEXT = re.compile(rb"(?!P[1-6]\s)[^\0-\x08\x0e-\x1a\x1c-\x1f]+\Z")  # P1 to P6: PBM, PGM, PPM

# what these print on damaged files is raised, too
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
with contextlib.suppress(OSError, AttributeError):  # where libtiff is a library of its own
    ctypes.CDLL(getattr(find_spec("PIL._imaging"), "origin", None)).TIFFSetErrorHandler(None)


class _Quiet:
    """Keep Pillow's warnings from the user: of broken metadata, which do not touch the pixels.

    ``warnings.catch_warnings`` alone is not for threads, of which the last to leave would bring back what it found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


QUIET = _Quiet()


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Read an image's header with Pillow, whatever size it claims; nothing is decoded.

    Not ``Image.open``: it refuses by a global limit, without naming width and height, and it does not tell a damaged
    header from an unknown format.

    Args:
        file: The image, at its start.

    Raises:
        Unreadable: If it is no image or its header cannot be read; the text says what it is.
    """
    Image.init()
    start = file.read(_START)
    damage = ""
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and not accept(start[:16].ljust(16, b"\0")):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except _NOT_MINE as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's fault, not the file's
            if accept is not None and not damage:  # TGA has no signature
                damage = f"is {name}, but its header is truncated, damaged or not supported{_detail(error)}"
    raise Unreadable(_stranger(start) or damage or "is not an image, or of an unknown format")


def _detail(error: BaseException) -> str:
    # of no use: errors of the plugin's own parsing, which Pillow wraps, and its word for a size of 0
    dull = error.__cause__ is not None or str(error) == "not identified by this driver"
    return "" if dull else f": {error}"


def _stranger(start: bytes) -> str:
    for pattern, text in _STRANGERS.items():
        if re.match(pattern, start):
            return text
    return "is a text file, not an image" if _is_text(start) else ""


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return _PLAIN_TEXT.match(start) is not None
