"""The orientation of a photo, as EXIF or XMP record it, and the rotation that makes it upright."""

import re
import struct
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from imgcls.images.unreadable import DAMAGED

Pixels = npt.NDArray[np.uint8]

UPRIGHT = 1  # the EXIF orientation that needs no rotation
_INTEGERS = {3: "H", 4: "I"}  # EXIF types SHORT, the standard for orientation, and LONG, which some writers use
# EXIF orientation -> the operation that makes the image upright
_ROTATIONS: dict[object, Callable[[Pixels], npt.NDArray[np.generic]]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_SIDEWAYS = {5, 6, 7, 8}  # width and height are exchanged


def parse_orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation of a JPEG's segments, as Pillow: EXIF before XMP, and a broken EXIF block is upright."""
    try:
        found = _exif_orientation(exif) if exif else None
    except (KeyError, struct.error):
        return UPRIGHT
    if found is None and (match := re.search(rb'tiff:Orientation(="|>)([0-9])', xmp)):
        found = int(match[2])
    return UPRIGHT if found is None else found


def _exif_orientation(exif: bytes) -> int | None:
    # Pillow's EXIF reader takes ten times as long and warns of unrelated tags
    order = {b"II*\0": "<", b"MM\0*": ">"}[exif[6:10]]
    entry = 8 + struct.unpack_from(f"{order}I", exif, 10)[0]  # offsets are relative to the byte order mark
    for _ in range(struct.unpack_from(f"{order}H", exif, entry - 2)[0]):
        tag, kind, number = struct.unpack_from(f"{order}HHI", exif, entry)
        if tag == ExifTags.Base.Orientation and kind in _INTEGERS and number == 1:
            return int(struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)[0])
        entry += 12
    return None


def orientation_of(image: Image.Image) -> object:
    """Return the orientation in EXIF or XMP: 1 to 8, or any invalid value of the file.

    A PNG must be loaded, or have no pixels, since EXIF may follow them.
    """
    try:
        # not PngImageFile.getexif, which decodes the pixels
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, UPRIGHT)
    except DAMAGED:
        return UPRIGHT  # broken EXIF, as in parse_orientation


def make_upright(pixels: Pixels, orientation: object) -> Pixels:
    """Rotate or mirror pixels ``(H, W, 3)`` according to their EXIF orientation; unknown values change nothing."""
    rotate = _ROTATIONS.get(orientation)
    return pixels if rotate is None else np.asarray(rotate(pixels), dtype=np.uint8)


def upright_size(width: int, height: int, orientation: object) -> tuple[int, int]:
    """Return width and height after ``make_upright``."""
    return (height, width) if orientation in _SIDEWAYS else (width, height)
