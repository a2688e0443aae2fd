"""PNG files: size from the header, and checks for damage that Pillow does not report."""

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

from imgcls.images.unreadable import Unreadable

_CHUNK = struct.Struct(">I4s")  # length, type
_BLOCK = 2**20  # bytes read at a time
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_PIXEL_CHUNKS = {b"IDAT", b"fdAT"}
_START = _SIGNATURE + b"\0\0\0\rIHDR"
# width, height, bit depth and colour type, compression, filter, interlacing, checksum; type of the next chunk
_HEADER = struct.Struct(">16sII2s3sI4x4s")
_COMMON_TYPES = {bytes(pair) for pair in ((8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6))}
_TEXT_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def png_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a common PNG.

    Returns:
        None where Pillow must read it: not a PNG, a palette or other chunks before the pixels, texts or EXIF, which may
        hold an orientation, or a damaged header.
    """
    if len(content) < _HEADER.size:
        return None
    start, width, height, kind, rest, checksum, pixels = _HEADER.unpack_from(content)
    if (start, rest[:2], pixels) != (_START, b"\0\0", b"IDAT") or kind not in _COMMON_TYPES or rest[2] > 1:
        return None
    if not width or not height or zlib.crc32(content[12:29]) != checksum or any(t in content for t in _TEXT_CHUNKS):
        return None
    return width, height


def refuse_broken_png(file: BinaryIO) -> None:
    """Check the checksums and the end of a PNG, which Pillow does not.

    Raises:
        Unreadable: If a checksum is wrong or the last chunk is missing.
    """
    file.seek(len(_SIGNATURE))
    kind = b""
    while kind != b"IEND":
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            raise Unreadable("is truncated: a PNG without its end")
        length, kind = _CHUNK.unpack(head)
        found = zlib.crc32(kind)
        while length and (piece := file.read(min(length, _BLOCK))):
            found = zlib.crc32(piece, found)
            length -= len(piece)
        expected = file.read(4)
        if len(expected) == 4 and found.to_bytes(4, "big") != expected:  # IEND's checksum may be cut off
            raise Unreadable(f"is damaged: a wrong checksum in the chunk {kind.decode('latin-1')!r}")


def refuse_short_png(file: BinaryIO, rows: int, row_bits: int) -> None:
    """Check that a correct PNG without interlacing has all of its rows; Pillow leaves missing rows black.

    Raises:
        Unreadable: If rows are missing.
    """
    needed = rows * (1 + (row_bits + 7) // 8)  # each row begins with a byte for its filter
    inflate, found = zlib.decompressobj(), 0
    file.seek(len(_SIGNATURE))
    while found < needed and len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        length, kind = _CHUNK.unpack(head)
        data = file.read(length + 4)[:-4]
        if kind == b"IDAT":
            found += sum(map(len, _inflated(inflate, data)))
    if found < needed:
        raise Unreadable(f"is truncated: {found * rows // needed} of {rows} rows of pixels are there")


def _inflated(inflate: Any, data: bytes) -> Iterator[bytes]:
    while data:
        yield inflate.decompress(data, _BLOCK)
        data = inflate.unconsumed_tail


def png_without_pixels(file: BinaryIO) -> BytesIO:
    """Return a PNG without its pixel data, since the orientation may follow the pixels."""
    file.seek(len(_SIGNATURE))
    kept = [_SIGNATURE]
    while len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        length, kind = _CHUNK.unpack(head)
        if kind == b"IEND":
            break
        if kind in _PIXEL_CHUNKS or length > _BLOCK:
            file.seek(length + 4, os.SEEK_CUR)
        else:
            kept += [head, file.read(length + 4)]
    return BytesIO(b"".join([*kept, _END]))
