"""Fast decoding of common JPEG and WebP files with libjpeg-turbo and libwebp, without Pillow's copies."""

import re

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from imgcls.images.exif_orientation import UPRIGHT
from imgcls.images.headers import jpeg_header, jpeg_scale, webp_size
from imgcls.images.unreadable import Unreadable, refuse_bombs

_JPEG = b"\xff\xd8\xff"
_SCAN = re.compile(rb"(?s)\xff\xda\0[\x06-\x0e]")
# libjpeg's warnings where it makes up pixels; it also warns of stray bytes before the end of the file, which do no harm
_DAMAGE = re.compile(r"premature end of data segment|bad Huffman code|extraneous bytes before marker 0xd[0-7a]")
_MAX_SCANS = 500  # of a progressive JPEG, as libjpeg-turbo advises: each scan takes time for all pixels, but few bytes


def decode_fast(
    content: bytes, max_pixels: int, min_side: int | None = None
) -> tuple[npt.NDArray[np.uint8], int] | None:
    """Decode a common file to exactly the pixels that Pillow returns; arguments as for ``decode_image``.

    Returns:
        The pixels as stored, RGB, uint8, ``(H, W, 3)``, and the EXIF orientation; None for files that Pillow must
        decode: other formats and variants, and files that the fast decoder reports errors for.

    Raises:
        Unreadable: If the image is larger than ``max_pixels``, has too many scans, or a scan lacks data.
    """
    if content.startswith(_JPEG):
        return _decode_jpeg(content, max_pixels, min_side)
    return _decode_webp(content, max_pixels)


def _decode_jpeg(content: bytes, max_pixels: int, min_side: int | None) -> tuple[npt.NDArray[np.uint8], int] | None:
    header = jpeg_header(content)
    if (header is None or header.progressive) and sum(1 for _ in _SCAN.finditer(content)) > _MAX_SCANS:
        raise Unreadable(f"has more than {_MAX_SCANS} scans; a photo has about ten")
    if header is None:
        _refuse_damage(content, max_pixels)
        return None
    refuse_bombs(header.width, header.height, max_pixels)
    scale = jpeg_scale(header.width, header.height, min_side)
    width, height = -(-header.width // scale), -(-header.height // scale)
    try:
        # strict: a warning is an error
        pixels = simplejpeg.decode_jpeg(content, strict=True, min_width=width, min_height=height)
        return pixels, header.orientation
    except ValueError as error:
        _refuse(error)
        return None


def _refuse_damage(content: bytes, max_pixels: int) -> None:
    """Refuse a JPEG that lacks data in a scan but that Pillow would decode, with pixels made up by libjpeg."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
        if height * width <= max_pixels:
            simplejpeg.decode_jpeg(content, "CMYK" if colours in {"CMYK", "YCCK"} else "RGB", strict=True)
    except (ValueError, LookupError) as error:  # LookupError: the header has no colour space
        _refuse(error)


def _refuse(error: ValueError | LookupError) -> None:
    if _DAMAGE.search(str(error)):
        raise Unreadable(f"is damaged: {error}")


def _decode_webp(content: bytes, max_pixels: int) -> tuple[npt.NDArray[np.uint8], int] | None:
    size = webp_size(content)
    if size is None:
        return None
    refuse_bombs(*size, max_pixels)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if pixels is None else (np.asarray(pixels, dtype=np.uint8), UPRIGHT)
