"""Read an image file: check its header, and decode it by the fastest method that gives exactly Pillow's values."""

import os
import re
import stat
from io import BytesIO

from PIL import Image

from imgcls.errors import ImageError
from imgcls.images.exif_orientation import Pixels, make_upright, upright_size
from imgcls.images.fast_decoders import decode_fast
from imgcls.images.headers import jpeg_header
from imgcls.images.pillow_decoder import convert_pillow, decode_with_pillow, size_with_pillow
from imgcls.images.png import png_size
from imgcls.images.unreadable import DAMAGED, Unreadable, refuse_bombs

# Above this size Pillow warns of a decompression bomb; imgcls refuses the image.
MAX_PIXELS = 89_478_485

_WHOLE = 64 * 2**20  # bytes; files up to this size are read at once, larger ones in blocks by the decoder
_STARTS = (4096, 256 * 2**10)  # bytes that hold the header of most JPEGs; of those with a thumbnail and a profile


def load_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, min_side: int | None = None) -> Pixels:
    """Read an image file as upright RGB.

    The format is recognised by content, not by the file's extension. EXIF orientation is applied, 16-bit channels keep
    their high byte, CMYK and YCCK are converted, transparency is composited over white, the first frame of an animation
    is used, and colour profiles are ignored.

    Args:
        path: The image file.
        max_pixels: The largest width x height that is decoded, according to the file's header.
        min_side: Decode a JPEG at a half, a quarter or an eighth of its size (DCT-scaled decoding), the smallest whose
            shorter side has at least so many pixels; other formats are decoded whole. None: exactly, at full size.

    Returns:
        The pixels, uint8, shape ``(H, W, 3)``, 0..255.

    Raises:
        ImageError: If the path is not a regular file, or the image is larger than ``max_pixels`` or cannot be decoded.
    """
    try:
        size = _size_on_disk(path)
        with open(path, "rb") as file:
            if size > _WHOLE:
                return decode_with_pillow(file, max_pixels, min_side)
            content = file.read()
        return _decode_bytes(content, max_pixels, min_side)
    except DAMAGED as error:
        raise ImageError(f"{os.fsdecode(path)}: {_reason(error)}") from error


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS, min_side: int | None = None) -> Pixels:
    """Decode the bytes of an image file, as ``load_image`` does; errors give the image that ``name``.

    Returns:
        The pixels, uint8, shape ``(H, W, 3)``, 0..255.

    Raises:
        ImageError: If the image is larger than ``max_pixels`` or cannot be decoded.
    """
    try:
        if not content:
            raise Unreadable("is empty")
        return _decode_bytes(content, max_pixels, min_side)
    except DAMAGED as error:
        raise ImageError(f"{name}: {_reason(error)}") from error


def read_pillow(image: Image.Image, name: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the pixels of a Pillow image by the rules of ``load_image``; errors give the image that ``name``.

    Returns:
        The pixels, uint8, shape ``(H, W, 3)``, 0..255, upright, RGB, transparency over white.

    Raises:
        ImageError: If the image is larger than ``max_pixels``, or its file cannot be decoded.
    """
    try:
        return convert_pillow(image, max_pixels)
    except DAMAGED as error:
        raise ImageError(f"{name}: {_reason(error)}") from error


def check_header(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Check an image file by its header, without decoding.

    ``load_image`` refuses all files that are refused here; it also refuses files that are damaged after the header.

    Returns:
        Width and height in pixels of the array that ``load_image`` returns.

    Raises:
        ImageError: If the path is not a regular file, or has no valid image header, or is larger than ``max_pixels``.
    """
    try:
        size = _size_on_disk(path)
        with open(path, "rb", buffering=0) as file:
            start = file.read(_STARTS[0])
            found = _common_size(start, size, max_pixels)
            if found is None and (size <= _STARTS[1] or start.startswith(b"\xff\xd8")) and size > _STARTS[0]:
                start += file.read(_STARTS[1] - _STARTS[0])
                found = _common_size(start, size, max_pixels)
        if found is not None:
            return found
        with BytesIO(start) if len(start) == size else open(path, "rb") as again:
            return size_with_pillow(again, max_pixels)
    except DAMAGED as error:
        raise ImageError(f"{os.fsdecode(path)}: {_reason(error)}") from error


def _common_size(start: bytes, size: int, max_pixels: int) -> tuple[int, int] | None:
    """Return width and height from the first bytes of a file of ``size`` bytes; None where Pillow must read it."""
    header = jpeg_header(start)
    if header is not None:
        refuse_bombs(header.width, header.height, max_pixels)
        return upright_size(header.width, header.height, header.orientation)
    found = png_size(start) if len(start) == size else None
    if found is not None:
        refuse_bombs(*found, max_pixels)
    return found


def _size_on_disk(path: str | os.PathLike[str]) -> int:
    # before opening: opening a pipe would block
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable("is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("is not a regular file (a pipe, socket or device)")
    if status.st_size == 0:
        raise Unreadable("is empty")
    return status.st_size


def _decode_bytes(content: bytes, max_pixels: int, min_side: int | None) -> Pixels:
    stored = decode_fast(content, max_pixels, min_side)
    return decode_with_pillow(BytesIO(content), max_pixels, min_side) if stored is None else make_upright(*stored)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Unreadable):
        return text
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"has {re.findall(r'[0-9]+', text)[0]} pixels, more than max_pixels"
    if text.startswith("image file is truncated"):
        return text.removeprefix("image file ")
    return f"is damaged or not supported: {text}"
