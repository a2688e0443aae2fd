"""From a file to pixels: one reader for every image that imgcls touches."""

import os
import stat
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from imgcls.errors import ImageError

Pixels = npt.NDArray[np.uint8]

# Pillow warns of a decompression bomb above this size; we refuse instead.
MAX_PIXELS = 89_478_485

# Not among them: EPS, which Pillow hands to Ghostscript, and formats that hold no pixels of their own.
_FORMATS = ["AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]

# EXIF orientation -> what turns the image upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise on damaged files (its plugins let struct, zlib and lookup errors through).
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


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
        _refuse_unopened(path)
        _raise_pillows_limit(max_pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata, which do not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _refuse_bombs(image, max_pixels)
                if image.format == "PNG":
                    _verify(path)
                return _to_rgb(image)
    except _DAMAGED as error:
        raise ImageError(f"{os.fspath(path)}: {_reason(error)}") from error


def _refuse_unopened(path: str | os.PathLike[str]) -> None:
    # before opening: opening a pipe waits for ever
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a regular file (a pipe, socket or device)")
    if status.st_size == 0:
        raise ValueError("is empty")


def _raise_pillows_limit(max_pixels: int) -> None:
    # it is global, and Pillow refuses what is larger whatever the caller allows
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def _refuse_bombs(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"has {width} x {height} pixels, more than max_pixels {max_pixels}")


def _verify(path: str | os.PathLike[str] | BytesIO) -> None:
    # Pillow's PNG decoder takes pixels with a wrong checksum, and a file without its end
    with Image.open(path) as image:
        image.verify()


def _to_rgb(image: Image.Image) -> Pixels:
    image = _upright(image)
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = _grey(values >> 8)
        grey[values == image.info.get("transparency", -1)] = 255  # a transparent shade, over white
        return grey
    if image.mode == "I":  # 16-bit values in 32-bit pixels
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("has 32-bit pixels; 8 or 16 bits are supported")
        return _grey(values >> 8)
    if image.mode == "F":
        raise ValueError("has floating-point pixels; 8 or 16 bits are supported")
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    # not ImageOps.exif_transpose: it also writes the EXIF block anew, and fails on tags that have nothing to do with it
    image.load()  # PNG may hold its EXIF after the pixels, TIFF turns itself
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _grey(values: npt.NDArray[np.integer]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def _over_white(image: Image.Image) -> Pixels:
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image).convert("RGB"))


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or of an unknown format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"is larger than max_pixels: {error}"
    return str(error) or type(error).__name__


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file as ``load_image`` does.

    Args:
        content: The bytes.
        name: What the error calls the image.
        max_pixels: The largest width x height that is decoded, judged by the header.

    Returns:
        The pixels, uint8, shape ``(H, W, 3)``, 0..255.

    Raises:
        ImageError: If the image is larger than ``max_pixels`` or cannot be decoded.
    """
    try:
        if not content:
            raise ValueError("is empty")
        _raise_pillows_limit(max_pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content), formats=_FORMATS) as image:
                _refuse_bombs(image, max_pixels)
                if image.format == "PNG":
                    _verify(BytesIO(content))
                return _to_rgb(image)
    except _DAMAGED as error:
        raise ImageError(f"{name}: {_reason(error)}") from error
