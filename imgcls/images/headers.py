"""What a file's bytes tell before its pixels are decoded."""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

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

_XMP = b"http://ns.adobe.com/xap/1.0/\0"

UPRIGHT = 1  # the orientation that turns nothing
_INTEGERS = {3: "H", 4: "I"}  # EXIF's types SHORT, which is the standard's, and LONG, which some write

_WEBP = struct.Struct("<4sI8sI3x3sHH2x")  # with the first bytes of its one chunk, which is a key frame of VP8

_CHUNK = struct.Struct(">I4s")  # length, kind
_PIECE = 2**20  # bytes
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_PIXELS = {b"IDAT", b"fdAT"}
_PNG_START = _PNG_SIGNATURE + b"\0\0\0\rIHDR"
# width, height, bits and colour type, compression, filter, interlacing, checksum; kind of the next chunk
_PNG_HEAD = struct.Struct(">16sII2s3sI4x4s")
_PNG_KINDS = {bytes(kind) for kind in ((8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6))}
_PNG_TEXTS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


class JpegHeader(NamedTuple):
    """What the segments before the first scan say; width and height as stored."""

    width: int
    height: int
    progressive: bool
    orientation: int  # of EXIF: 1 to 8, or whatever stands there


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
    xmp = [data[at:end] for kind, at, end in segments if kind == _APP1 and data.startswith(_XMP, at)]
    orientation = _orientation(exif[0] if exif else b"", xmp[-1] if xmp else b"")
    return JpegHeader(width, height, kind == _PROGRESSIVE, orientation)


def _segments(data: bytes) -> list[tuple[int, int, int]] | None:
    # marker, start and end of each segment that stands before the first scan
    found: list[tuple[int, int, int]] = []
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


def _orientation(exif: bytes, xmp: bytes) -> int:
    # as Pillow has it: EXIF first, and a broken block says nothing
    try:
        found = _exif_orientation(exif) if exif else None
    except (KeyError, struct.error):
        return UPRIGHT
    if found is None and (match := re.search(rb'tiff:Orientation(="|>)([0-9])', xmp)):
        found = int(match[2])
    return UPRIGHT if found is None else found


def _exif_orientation(exif: bytes) -> int | None:
    # not Pillow's reader of EXIF, which takes ten times as long and warns of tags that have nothing to do with it
    order = {b"II*\0": "<", b"MM\0*": ">"}[exif[6:10]]
    entry = 8 + struct.unpack_from(f"{order}I", exif, 10)[0]  # offsets count from the byte order's mark
    for _ in range(struct.unpack_from(f"{order}H", exif, entry - 2)[0]):
        tag, kind, number = struct.unpack_from(f"{order}HHI", exif, entry)
        if tag == ExifTags.Base.Orientation and kind in _INTEGERS and number == 1:
            return int(struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)[0])
        entry += 12
    return None


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of an everyday WebP.

    Args:
        content: The whole file.

    Returns:
        None for what is left to Pillow: no WebP, lossless, with alpha, EXIF or several frames, or cut off.
    """
    if len(content) < _WEBP.size:
        return None
    riff, length, webp, length_of_frame, start, width, height = _WEBP.unpack_from(content)
    whole = length + 8 == len(content) and len(content) - 21 <= length_of_frame <= len(content) - 20
    if (riff, webp, start) != (b"RIFF", b"WEBPVP8 ", b"\x9d\x01\x2a") or not whole:
        return None
    return width & 0x3FFF, height & 0x3FFF  # the other two bits ask for a larger display


def png_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of an everyday PNG.

    Args:
        content: The whole file.

    Returns:
        None for what is left to Pillow: no PNG, a palette or other chunks before the pixels, texts or EXIF, which may
        say how it is turned, a header that is damaged.
    """
    if len(content) < _PNG_HEAD.size:
        return None
    start, width, height, kind, rest, checksum, pixels = _PNG_HEAD.unpack_from(content)
    if (start, rest[:2], pixels) != (_PNG_START, b"\0\0", b"IDAT") or kind not in _PNG_KINDS or rest[2] > 1:
        return None
    if not width or not height or zlib.crc32(content[12:29]) != checksum or any(map(content.__contains__, _PNG_TEXTS)):
        return None
    return width, height


def refuse_bombs(width: int, height: int, max_pixels: int) -> None:
    """Raise Unreadable if an image is larger than what the caller decodes.

    Args:
        width: By the header.
        height: By the header.
        max_pixels: The largest width x height.
    """
    if width * height > max_pixels:
        raise Unreadable(f"has {width} x {height} pixels, more than max_pixels {max_pixels}")


def orientation_of(image: Image.Image) -> object:
    """Return what EXIF or XMP says of an image's orientation: 1 to 8, or whatever stands there.

    Args:
        image: Where it is a PNG, loaded or without its pixels: they may stand before what is asked.
    """
    try:
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, UPRIGHT)  # not PngImageFile's, which decodes
    except DAMAGED:
        return UPRIGHT  # as above


def refuse_broken_png(file: BinaryIO) -> None:
    """Check all of a PNG: Pillow takes pixels with a wrong checksum, and a file without its end.

    Args:
        file: The PNG.

    Raises:
        Unreadable: If a checksum is wrong or the last chunk is missing.
    """
    file.seek(len(_PNG_SIGNATURE))
    kind = b""
    while kind != b"IEND":
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            raise Unreadable("is truncated: a PNG without its end")
        length, kind = _CHUNK.unpack(head)
        found = zlib.crc32(kind)
        while length and (piece := file.read(min(length, _PIECE))):
            found = zlib.crc32(piece, found)
            length -= len(piece)
        expected = file.read(4)
        if len(expected) == 4 and found.to_bytes(4, "big") != expected:  # IEND's may be cut: a checksum of nothing
            raise Unreadable(f"is damaged: a wrong checksum in the chunk {kind.decode('latin-1')!r}")


def refuse_short_png(file: BinaryIO, rows: int, row_bits: int) -> None:
    """Check that a PNG that is not interlaced holds all of its rows: Pillow leaves those that are missing black.

    Args:
        file: The PNG, its checksums right.
        rows: Its height.
        row_bits: Bits of a row of pixels.

    Raises:
        Unreadable: If rows are missing.
    """
    needed = rows * (1 + (row_bits + 7) // 8)  # each row begins with the number of its filter
    inflate, found = zlib.decompressobj(), 0
    file.seek(len(_PNG_SIGNATURE))
    while found < needed and len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        length, kind = _CHUNK.unpack(head)
        data = file.read(length + 4)[:-4]
        if kind == b"IDAT":
            found += sum(map(len, _inflated(inflate, data)))
    if found < needed:
        raise Unreadable(f"is truncated: {found * rows // needed} of {rows} rows of pixels are there")


def _inflated(inflate: Any, data: bytes) -> Iterator[bytes]:
    while data:
        yield inflate.decompress(data, _PIECE)
        data = inflate.unconsumed_tail


def png_without_pixels(file: BinaryIO) -> BytesIO:
    """Return a PNG without the chunks that hold its pixels: what says how it is turned may stand behind them.

    Args:
        file: The PNG.
    """
    file.seek(len(_PNG_SIGNATURE))
    kept = [_PNG_SIGNATURE]
    while len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        length, kind = _CHUNK.unpack(head)
        if kind == b"IEND":
            break
        if kind in _PNG_PIXELS or length > _PIECE:
            file.seek(length + 4, os.SEEK_CUR)
        else:
            kept += [head, file.read(length + 4)]
    return BytesIO(b"".join([*kept, _PNG_END]))
