"""Image files made byte by byte: what Pillow does not write."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imgcls.images import Pixels


def quarters() -> Pixels:
    """32 wide, 16 high: red, blue above green, black; no turn or mirror image of it is the same."""
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :16, 0] = pixels[8:, :16, 1] = pixels[:8, 16:, 2] = 255
    return pixels


def encoded(image: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


STORED = {  # EXIF orientation -> how a camera that writes it stores the upright picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(orientation: int) -> Image.Image:
    turn = STORED[orientation]
    upright = Image.fromarray(quarters())
    return upright if turn is None else upright.transpose(turn)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x011A] = 72.5
    return tags


# -- JPEG


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Put in behind the start marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def without_segments(jpeg: bytes, marker: int) -> bytes:
    start = jpeg.index(bytes([0xFF, marker]))
    (length,) = struct.unpack_from(">H", jpeg, start + 2)
    return jpeg[:start] + jpeg[start + 2 + length :]


def claiming(jpeg: bytes, width: int, height: int, bits: int = 8) -> bytes:
    """Another size in the frame header of a baseline JPEG."""
    start = jpeg.index(b"\xff\xc0")
    return jpeg[: start + 4] + struct.pack(">BHH", bits, height, width) + jpeg[start + 9 :]


# -- PNG

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    size: tuple[int, int],
    depth: int,
    colour: int,
    rows: Sequence[bytes],
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """Rows without their filter byte; ``before`` and ``after`` are chunks around the pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def bomb(side: int) -> bytes:
    """A real PNG of ``side`` x ``side`` black pixels of one bit."""
    packer = zlib.compressobj(9)
    rows = bytes(side // 8 + 1) * 1000
    data = b"".join(packer.compress(rows) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# -- BMP and ICO


def bmp(
    bits: int,
    data: bytes,
    size: tuple[int, int] = (32, 16),
    compression: int = 0,
    palette: bytes = b"",
    masks: bytes = b"",
) -> bytes:
    """A negative height: stored from the top down."""
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    start = 14 + len(header) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + palette + data


def ico(content: bytes, width: int, height: int) -> bytes:
    """One image, which claims a size of its own."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, width % 256, height % 256, 0, 0, 1, 32, len(content), 22) + content


# -- TIFF


def tiff(tags: Mapping[int, tuple[int, ...]], data: Sequence[bytes], order: str = "<", places: int = 273) -> bytes:
    """Short tags; ``data`` are strips (or tiles, with ``places`` 324), whose offsets and lengths are filled in."""
    offsets = [8 + sum(map(len, data[:number])) for number in range(len(data))]
    entries: dict[int, tuple[int, tuple[int, ...]]] = {
        tag: (3 if max(values) < 2**16 else 4, values) for tag, values in tags.items()
    }
    entries |= {places: (4, tuple(offsets)), places + (6 if places == 273 else 1): (4, tuple(map(len, data)))}
    body = b"".join(data)
    directory, outside = b"", b""
    behind = 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}{'HI'[kind - 3]}", *values)
        if len(packed) > 4:
            place, outside = struct.pack(f"{order}I", behind + len(outside)), outside + packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(body))
    return start + body + struct.pack(f"{order}H", len(entries)) + directory + bytes(4) + outside
