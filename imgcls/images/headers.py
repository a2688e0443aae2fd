"""Read the headers of JPEG and WebP files."""

import struct
from typing import NamedTuple

from imgcls.images.exif_orientation import parse_orientation

_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, length with its own two bytes
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_PROGRESSIVE = 0xC2
_SCAN = 0xDA
_APP1 = 0xE1
_SKIPPED = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, restarts, comments, applications' data

_XMP = b"http://ns.adobe.com/xap/1.0/\0"

_WEBP = struct.Struct("<4sI8sI3x3sHH2x")  # RIFF header and the first bytes of a single chunk, a VP8 key frame


class JpegHeader(NamedTuple):
    """Values of the segments before the first scan; width and height as stored, before rotation."""

    width: int
    height: int
    progressive: bool
    orientation: int  # EXIF: 1 to 8, or any invalid value of the file


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the header of a common JPEG from its first bytes.

    Returns:
        The header; None where Pillow must read it: not a JPEG, more than 8 bits, CMYK, lossless or arithmetic coding,
        two EXIF blocks, bytes between the segments, or a header that does not end within ``data``.
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
    orientation = parse_orientation(exif[0] if exif else b"", xmp[-1] if xmp else b"")
    return JpegHeader(width, height, kind == _PROGRESSIVE, orientation)


def _segments(data: bytes) -> list[tuple[int, int, int]] | None:
    # marker, start and end of each segment before the first scan
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


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a common WebP.

    Returns:
        None where Pillow must read it: not a WebP, lossless, with alpha, EXIF or several frames, or truncated.
    """
    if len(content) < _WEBP.size:
        return None
    riff, length, webp, length_of_frame, start, width, height = _WEBP.unpack_from(content)
    whole = length + 8 == len(content) and len(content) - 21 <= length_of_frame <= len(content) - 20
    if (riff, webp, start) != (b"RIFF", b"WEBPVP8 ", b"\x9d\x01\x2a") or not whole:
        return None
    return width & 0x3FFF, height & 0x3FFF  # the upper two bits are a scale for display


def jpeg_scale(width: int, height: int, min_side: int | None) -> int:
    """Return the divisor, 1, 2, 4 or 8, at which a JPEG of that size, in pixels as stored, is decoded.

    At these divisors libjpeg-turbo computes smaller blocks of 4, 2 or 1 pixels from the 8 x 8 coefficients (DCT-scaled
    decoding), which is an antialiased reduction. Its other scales are slower than whole images; Pillow has only these.
    The shorter side then has at least ``min_side`` pixels; None: all.
    """
    if min_side is None:
        return 1
    return next((scale for scale in (8, 4, 2) if -(-min(width, height) // scale) >= min_side), 1)
