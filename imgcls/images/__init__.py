"""From a file to pixels: one reader for every image that imgcls touches."""

from imgcls.images.reader import MAX_PIXELS, Pixels, check_header, decode_image, load_image

__all__ = ["MAX_PIXELS", "Pixels", "check_header", "decode_image", "load_image"]
