"""What a file's bytes tell before its pixels are decoded."""

import re
import struct
import zlib
from io import BytesIO
from typing import BinaryIO, NamedTuple

from PIL import ExifTags, Image

# What Pillow raises on damaged files: its plugins let struct, zlib and lookup errors through.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    AssertionError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Unreadable(ValueError):
    """A file that is refused; the text is the reason, in our own words."""


_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, length with its own two bytes
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_PROGRESSIVE = 0xC2
_SCAN = 0xDA
_APP1 = 0xE1
_SKIPPED = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, restarts, comments, applications' data

_CHUNK = struct.Struct(">I4s")  # length, kind
_PNG_PIXELS = {b"IDAT", b"fdAT"}


class JpegHeader(NamedTuple):
    """What the segments before the first scan say; width and height as stored."""

    width: int
    height: int
    progressive: bool
    orientation: object  # of EXIF: 1 to 8, or whatever stands there


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the header of an everyday JPEG.

    Args:
        data: The file, or its first bytes.

    Returns:
        The header; None for what is left to Pillow: no JPEG, more than 8 bits, CMYK, lossless or arithmetic coding,
        two EXIF blocks, bytes between the segments, a header that does not end within ``data``.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    segments = _segments(data)
    if segments is None:
        return None
    frames = [(kind, at) for kind, at, _ in segments if kind in _FRAMES]
    exif = [data[at:end] for kind, at, end in segments if kind == _APP1 and data.startswith(b"Exif\0\0", at)]
    if len(frames) != 1 or len(exif) > 1:
        return None
    kind, at = frames[0]
    bits, height, width, components = _FRAME.unpack_from(data, at)
    if bits != 8 or components not in (1, 3) or not width or not height:
        return None
    xmp = [data[at:end] for kind, at, end in segments if kind == _APP1 and data.startswith(b"http://ns.adobe", at)]
    orientation = _orientation(exif[0] if exif else b"", xmp[-1] if xmp else b"")
    return JpegHeader(width, height, kind == _PROGRESSIVE, orientation)


def _segments(data: bytes) -> list[tuple[int, int, int]] | None:
    # marker, start and end of each segment that stands before the first scan
    found = []
    at = 2
    while at + 4 <= len(data):
        start, marker, length = _SEGMENT.unpack_from(data, at)
        if start == 0xFF and marker == _SCAN:
            return found
        if start != 0xFF or length < 2 or (marker not in _SKIPPED and marker not in _FRAMES):
            return None
        found.append((marker, at + 4, at + 2 + length))
        at += 2 + length
    return None


def _orientation(exif: bytes, xmp: bytes) -> object:
    # as Pillow's getexif has it, without a look at the other tags
    if b"\x01\x12" in exif or b"\x12\x01" in exif:
        tags = Image.Exif()
        try:
            tags.load(exif)
            if ExifTags.Base.Orientation in tags:
                return tags[ExifTags.Base.Orientation]
        except DAMAGED:
            return 1  # a broken block says nothing, and the pixels are whole
    match = re.search(rb'tiff:Orientation(="|>)([0-9])', xmp)
    return int(match[2]) if match else 1


def orientation_of(image: Image.Image) -> object:
    """Return what EXIF or XMP says of an image's orientation: 1 to 8 (1: upright), or whatever stands there."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGED:
        return 1  # as above


def refuse_broken_png(file: BinaryIO) -> None:
    """Check all of a PNG: Pillow takes pixels with a wrong checksum, and a file without its end.

    Args:
        file: The PNG.

    Raises:
        Unreadable: If a checksum is wrong or the last chunk is missing.
    """
    file.seek(8)
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        length, kind = _CHUNK.unpack(head) if len(head) == 8 else (0, b"")
        body = memoryview(file.read(length + 4))
        if len(body) < length + 4 and kind != b"IEND":  # the last four bytes are a checksum of nothing
            raise Unreadable("is truncated: a PNG without its end")
        if len(body) == length + 4 and zlib.crc32(body[:length], zlib.crc32(kind)).to_bytes(4, "big") != body[length:]:
            raise Unreadable(f"is damaged: a wrong checksum in the chunk {kind.decode('latin-1')!r}")


def png_without_pixels(file: BinaryIO) -> BytesIO:
    """Return a PNG without the chunks that hold its pixels; what says how it is turned may stand behind them.

    Args:
        file: The PNG.
    """
    file.seek(0)
    kept = [file.read(8)]
    while len(head := file.read(8)) == 8:
        length, kind = _CHUNK.unpack(head)
        if kind in _PNG_PIXELS:
            file.seek(length + 4, 1)
        else:
            kept += [head, file.read(length + 4)]
        if kind == b"IEND":
            break
    return BytesIO(b"".join(kept))
