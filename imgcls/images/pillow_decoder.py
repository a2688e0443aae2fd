"""Decoding with Pillow: every format and variant that the fast decoders leave out."""

from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from imgcls.images.exif_orientation import Pixels, make_upright, orientation_of, upright_size
from imgcls.images.headers import jpeg_scale
from imgcls.images.pillow_formats import open_image
from imgcls.images.pillow_settings import while_reading
from imgcls.images.png import png_without_pixels, refuse_broken_png, refuse_short_png
from imgcls.images.unreadable import Unreadable, refuse_bombs

_PNG_TYPE_OFFSET = 24  # of bit depth and colour type
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # colour type -> channels, if more than 1
_MOST_BITS = 16
_SIGNED = 2  # value of TIFF's SampleFormat
_TOO_DEEP = "has 32-bit pixels; 8 or 16 bits are supported"
_WHITE_IS_ZERO = 0  # value of TIFF's PhotometricInterpretation


def decode_with_pillow(file: BinaryIO, max_pixels: int, min_side: int | None = None) -> Pixels:
    """Decode an image file, at its start; ``max_pixels`` and ``min_side`` as for ``load_image``.

    Returns:
        The upright pixels, RGB, uint8, ``(H, W, 3)``.

    Raises:
        Unreadable: If the image is too large, damaged or not supported; Pillow's plugins raise other ``DAMAGED`` types.
    """
    with while_reading(max_pixels):
        image = open_image(file)
        refuse_bombs(*image.size, max_pixels)
        _refuse_deep(image)
        if image.format == "PNG":
            position = file.tell()
            refuse_broken_png(file)
            file.seek(position)
        scale = jpeg_scale(*image.size, min_side)
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))  # no effect unless it is a JPEG
        image.load()  # before EXIF is read: a PNG may have it after the pixels, and Pillow rotates a TIFF itself
        if image.format == "PNG":
            _check_last_row(image, file)
        return make_upright(_to_rgb(image), orientation_of(image))


def convert_pillow(image: Image.Image, max_pixels: int) -> Pixels:
    """Convert an image that a user has opened or made with Pillow, as ``decode_with_pillow`` converts a file.

    Returns:
        The upright pixels, RGB, uint8, ``(H, W, 3)``.

    Raises:
        Unreadable: If the image is too large or not supported; loading its file raises other ``DAMAGED`` types.
    """
    with while_reading(max_pixels):
        refuse_bombs(*image.size, max_pixels)
        _refuse_deep(image)
        image.load()
        return make_upright(_to_rgb(image), orientation_of(image))


def _check_last_row(image: Image.Image, file: BinaryIO) -> None:
    """Count the rows if the last one is black, as missing rows are; counting takes half as long as decoding."""
    last = image.crop((0, image.height - 1, *image.size))
    if not np.asarray(last).any() and not image.info.get("interlace"):
        file.seek(_PNG_TYPE_OFFSET)
        depth, kind = file.read(2)
        refuse_short_png(file, image.height, image.width * depth * _PNG_CHANNELS.get(kind, 1))


def size_with_pillow(file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    """Return width and height of the upright image, in pixels, from the header.

    Raises:
        Unreadable: As ``decode_with_pillow`` does for what shows in the header.
    """
    with while_reading(max_pixels):
        image = open_image(file)
        refuse_bombs(*image.size, max_pixels)
        _refuse_deep(image)
        if image.format == "PNG":
            image = open_image(png_without_pixels(file))
        if isinstance(image, TiffImageFile) and ExifTags.Base.Orientation in image.tag_v2:
            return image.size  # Pillow reports the upright size
        return upright_size(*image.size, orientation_of(image))


def _refuse_deep(image: Image.Image) -> None:
    # judged by the header: judged by values, some files of a dataset would be read and some refused
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
    if isinstance(image, TiffImageFile):  # Pillow returns the stored values and ignores these tags
        if image.tag_v2.get(ExifTags.Base.BitsPerSample) == (12,):
            high = (values >> 4).astype(np.uint8)
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO:
            high = ~high
    high[values == image.info.get("transparency", -1)] = 255  # transparent, composited over white
    return np.repeat(high[:, :, None], 3, axis=2)


def _over_white(image: Image.Image) -> Pixels:
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 0xFF:  # Pillow reduces the pixels to 8 bits, but not this
        image = image.copy()  # which may be a user's
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
