"""The image reader: every image that imgcls uses is decoded here."""

from imgcls.errors import ImageError
from imgcls.images.exif_orientation import Pixels
from imgcls.images.reader import MAX_PIXELS, check_header, decode_image, load_image, read_pillow

__all__ = ["MAX_PIXELS", "ImageError", "Pixels", "check_header", "decode_image", "load_image", "read_pillow"]
