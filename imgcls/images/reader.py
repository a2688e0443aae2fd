"""Reads an image file: its header checked, its pixels decoded by the fastest way that gives Pillow's very values."""

import os
import re
import stat
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from imgcls.errors import ImageError
from imgcls.images.fast_decoders import decode_fast
from imgcls.images.headers import (
    DAMAGED,
    Unreadable,
    jpeg_header,
    orientation_of,
    png_size,
    png_without_pixels,
    refuse_bombs,
    refuse_broken_png,
    refuse_short_png,
)
from imgcls.images.pillow_formats import QUIET, open_image

Pixels = npt.NDArray[np.uint8]

# Pillow warns of a decompression bomb above this size; we refuse instead.
MAX_PIXELS = 89_478_485

_WHOLE = 64 * 2**20  # bytes; files up to here are read at once, larger ones as the decoder asks
_STARTS = (4096, 256 * 2**10)  # bytes that hold the header of nearly all JPEGs; of those with a thumbnail and a profile

# EXIF orientation -> what turns the image upright
_TURNS: dict[object, Callable[[Pixels], npt.NDArray[np.generic]]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_SIDEWAYS = {5, 6, 7, 8}
_SHAPE_OF_PNG = 24  # where bits and colour type stand
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # colour type -> channels, where there are several
_MOST_BITS = 16
_SIGNED = 2  # of TIFF's SampleFormat
_TOO_DEEP = "has 32-bit pixels; 8 or 16 bits are supported"
_WHITE_IS_ZERO = 0  # of TIFF's photometric interpretations


def load_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read an image file as upright RGB.

    The content decides the format, not the file's extension. EXIF orientation is applied, 16-bit channels keep their
    high byte, CMYK and YCCK are converted, transparency is composited over white, the first frame of an animation is
    taken, and colour profiles are ignored.

    Args:
        path: The image file.
        max_pixels: The largest width x height that is decoded, judged by the file's header.

    Returns:
        The pixels, uint8, shape ``(H, W, 3)``, 0..255.

    Raises:
        ImageError: If the path is no regular file, is larger than ``max_pixels`` or cannot be decoded.
    """
    try:
        size = _size_on_disk(path)
        with open(path, "rb") as file:
            if size > _WHOLE:
                return _decode(file, max_pixels)
            content = file.read()
        return _decode_bytes(content, max_pixels)
    except DAMAGED as error:
        raise ImageError(f"{os.fsdecode(path)}: {_reason(error)}") from error


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file, as ``load_image`` does.

    Args:
        content: The bytes.
        name: What an error calls the image.
        max_pixels: The largest width x height that is decoded, judged by the header.

    Returns:
        The pixels, uint8, shape ``(H, W, 3)``, 0..255.

    Raises:
        ImageError: If the image is larger than ``max_pixels`` or cannot be decoded.
    """
    try:
        if not content:
            raise Unreadable("is empty")
        return _decode_bytes(content, max_pixels)
    except DAMAGED as error:
        raise ImageError(f"{name}: {_reason(error)}") from error


def check_header(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read an image file's header; nothing is decoded.

    What is refused here, ``load_image`` refuses, too. What is damaged behind its header passes.

    Args:
        path: The image file.
        max_pixels: The largest width x height that is accepted.

    Returns:
        Width and height of what ``load_image`` returns, in pixels.

    Raises:
        ImageError: If the path is no regular file, is larger than ``max_pixels`` or has no header of an image.
    """
    try:
        size = _size_on_disk(path)
        with open(path, "rb", buffering=0) as file:
            start = file.read(_STARTS[0])
            found = _everyday_size(start, size, max_pixels)
            if found is None and (size <= _STARTS[1] or start.startswith(b"\xff\xd8")) and size > _STARTS[0]:
                start += file.read(_STARTS[1] - _STARTS[0])
                found = _everyday_size(start, size, max_pixels)
        if found is not None:
            return found
        with BytesIO(start) if len(start) == size else open(path, "rb") as again:
            return _size(again, max_pixels)
    except DAMAGED as error:
        raise ImageError(f"{os.fsdecode(path)}: {_reason(error)}") from error


def _everyday_size(start: bytes, size: int, max_pixels: int) -> tuple[int, int] | None:
    """Return width and height by the first bytes of a file of that size; None for what is left to Pillow."""
    header = jpeg_header(start)
    if header is not None:
        refuse_bombs(header.width, header.height, max_pixels)
        return _upright_size(header.width, header.height, header.orientation)
    found = png_size(start) if len(start) == size else None
    if found is not None:
        refuse_bombs(*found, max_pixels)
    return found


def _size_on_disk(path: str | os.PathLike[str]) -> int:
    # before opening: opening a pipe waits for ever
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable("is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("is not a regular file (a pipe, socket or device)")
    if status.st_size == 0:
        raise Unreadable("is empty")
    return status.st_size


def _decode_bytes(content: bytes, max_pixels: int) -> Pixels:
    stored = decode_fast(content, max_pixels)
    return _decode(BytesIO(content), max_pixels) if stored is None else _turned(*stored)


def _decode(file: BinaryIO, max_pixels: int) -> Pixels:
    _raise_pillows_limit(max_pixels)
    with QUIET:
        image = open_image(file)
        refuse_bombs(*image.size, max_pixels)
        _refuse_deep(image)
        if image.format == "PNG":
            place = file.tell()
            refuse_broken_png(file)
            file.seek(place)
        image.load()  # before EXIF is asked: PNG may hold it after the pixels, TIFF turns itself
        if image.format == "PNG":
            _check_last_row(image, file)
        return _turned(_to_rgb(image), orientation_of(image))


def _check_last_row(image: Image.Image, file: BinaryIO) -> None:
    """Look for missing rows where the last one is empty, as those are; counting them takes half as long as decoding."""
    last = image.crop((0, image.height - 1, *image.size))
    if not np.asarray(last).any() and not image.info.get("interlace"):
        file.seek(_SHAPE_OF_PNG)
        depth, kind = file.read(2)
        refuse_short_png(file, image.height, image.width * depth * _PNG_CHANNELS.get(kind, 1))


def _size(file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    _raise_pillows_limit(max_pixels)
    with QUIET:
        image = open_image(file)
        refuse_bombs(*image.size, max_pixels)
        _refuse_deep(image)
        if image.format == "PNG":
            image = open_image(png_without_pixels(file))
        if isinstance(image, TiffImageFile) and ExifTags.Base.Orientation in image.tag_v2:
            return image.size  # upright already
        return _upright_size(*image.size, orientation_of(image))


def _raise_pillows_limit(max_pixels: int) -> None:
    # it is global; some plugins ask it again, and refuse what is larger whatever the caller allows
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def _turned(pixels: Pixels, orientation: object) -> Pixels:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.asarray(turn(pixels), dtype=np.uint8)


def _upright_size(width: int, height: int, orientation: object) -> tuple[int, int]:
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def _refuse_deep(image: Image.Image) -> None:
    # by the header: by the values, some files of a data set would be read and some refused
    if image.mode == "F":
        raise Unreadable("has floating-point pixels; 8 or 16 bits are supported")
    if isinstance(image, TiffImageFile):
        if max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))) > _MOST_BITS:
            raise Unreadable(_TOO_DEEP)
        if _SIGNED in image.tag_v2.get(ExifTags.Base.SampleFormat, ()):
            raise Unreadable("has signed pixels; unsigned ones of 8 or 16 bits are supported")


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _high_byte(image)
    if image.has_transparency_data:
        return _over_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _high_byte(image: Image.Image) -> Pixels:
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 0xFFFF):
        raise Unreadable(_TOO_DEEP)
    high = (values >> 8).astype(np.uint8)
    if isinstance(image, TiffImageFile):  # Pillow hands out what is stored, whatever the tags say of its meaning
        if image.tag_v2.get(ExifTags.Base.BitsPerSample) == (12,):
            high = (values >> 4).astype(np.uint8)
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO:
            high = ~high
    high[values == image.info.get("transparency", -1)] = 255  # a transparent shade, over white
    return np.repeat(high[:, :, None], 3, axis=2)


def _over_white(image: Image.Image) -> Pixels:
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 0xFF:  # Pillow cuts the pixels to their high byte, but not this
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


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
