"""What decoders raise on files that cannot be used as an image."""

import struct
import zlib

from PIL import Image

# Exceptions that Pillow raises on damaged files; its plugins do not catch struct, zlib and lookup errors.
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
    """A file that cannot be used as an image; the text is the reason without the path."""


def refuse_bombs(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image whose header says that it has more pixels than the caller allows.

    Raises:
        Unreadable: If it has.
    """
    if width * height > max_pixels:
        raise Unreadable(f"has {width} x {height} pixels, more than max_pixels {max_pixels}")
