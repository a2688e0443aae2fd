"""The image formats that are read with Pillow, and names for common files that are not images."""

import codecs
import re
import struct
from typing import BinaryIO

from PIL import Image, ImageFile

from imgcls.images.unreadable import Unreadable

# Without EPS, which Pillow passes to Ghostscript, and formats without pixels.
_FORMATS = ["AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]

# exceptions of plugins on a header that they cannot read; not those of a decompression bomb
_HEADER_ERRORS = (OSError, ValueError, SyntaxError, LookupError, TypeError, RuntimeError, AssertionError, struct.error)

_START = 1024  # bytes by which the type of a file is recognised

# files that are found beside images, by their first bytes; the first match counts
_OTHER_FILES = {
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


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Read the header of an image file, at its start, with Pillow, without a limit of size; decode no pixels.

    ``Image.open`` applies a global limit without naming width and height, and does not distinguish a damaged header
    from an unknown format.

    Raises:
        Unreadable: If it is not an image, or its header cannot be read; the text names the type of the file.
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
        except _HEADER_ERRORS as error:
            if isinstance(error, OSError) and error.errno:
                raise  # an error of the disk, not of the file
            if accept is not None and not damage:  # TGA has no signature
                damage = f"is {name}, but its header is truncated, damaged or not supported{_detail(error)}"
    raise Unreadable(_other_file(start) or damage or "is not an image, or of an unknown format")


def _detail(error: BaseException) -> str:
    # not helpful: parsing errors inside the plugin, which Pillow wraps, and its message for a size of 0
    useless = error.__cause__ is not None or str(error) == "not identified by this driver"
    return "" if useless else f": {error}"


def _other_file(start: bytes) -> str:
    for pattern, text in _OTHER_FILES.items():
        if re.match(pattern, start):
            return text
    return "is a text file, not an image" if _is_text(start) else ""


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return _PLAIN_TEXT.match(start) is not None
