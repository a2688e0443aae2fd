"""Draw a heat map over a photo, and both side by side with a title."""

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imgcls.images import Pixels

_COLOURS = mpl.colormaps["inferno"]
_DARKEST, _BRIGHTEST = 60, 200  # greys of the photo below the colours, so that these show on dark and bright photos
_LEAST_CONTRAST = 64  # of a photo whose greys are stretched
_UNSEEN = 0.35  # brightness of what the network does not see
_COLD, _HOT = 0.35, 1.0  # part of the colour map: its black and dark blue are left out
_OPACITY = 0.75  # of the hottest point
_SHADE = 0.6  # how far the colours follow the brightness of the photo, so that its details stay visible
_CONTOUR = 0.5  # heat of the line
_MARGIN, _TEXT = 8, 15  # pixels
_LEAST_SIDE, _MOST_SIDE = 224, 800  # of a photo in a panel


def overlay(photo: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Lay a heat map over a photo: colours, and a line around what is hotter than half of the maximum.

    Args:
        photo: uint8, ``(H, W, 3)``, RGB.
        heat: ``(H, W)``, 0 to 1; NaN where the network does not see the photo.

    Returns:
        uint8, ``(H, W, 3)``.
    """
    unseen = np.isnan(heat)
    values = np.where(unseen, 0, heat)[..., None]
    grey = _greys(photo)[..., None]
    colour = _COLOURS(_COLD + (_HOT - _COLD) * values[..., 0])[..., :3] * 255
    opacity = _OPACITY * np.sqrt(values)
    shaded = colour * (1 - _SHADE + _SHADE * grey / _BRIGHTEST)
    drawn = grey * (1 - opacity) + shaded * opacity
    drawn[unseen] *= _UNSEEN
    pixels = np.ascontiguousarray(drawn.round().clip(0, 255), dtype=np.uint8)
    lines, _ = cv2.findContours((values[..., 0] >= _CONTOUR).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, min(photo.shape[:2]) // 200)
    cv2.drawContours(pixels, lines, -1, (0, 0, 0), 3 * thickness, cv2.LINE_AA)
    cv2.drawContours(pixels, lines, -1, (255, 255, 255), thickness, cv2.LINE_AA)
    return pixels


def _greys(photo: Pixels) -> NDArray[np.float64]:
    """Return the brightness of a photo ``(H, W)``, stretched to the range between the darkest and the brightest."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float64)
    low, high = np.percentile(grey, (1, 99))
    share = 0.5 + (grey - (low + high) / 2) / max(high - low, _LEAST_CONTRAST)
    return np.asarray(_DARKEST + (_BRIGHTEST - _DARKEST) * share.clip(0, 1))


def panel_scale(height: int, width: int) -> float:
    """Return the factor by which a photo is enlarged or shrunk for a panel."""
    side = max(height, width)
    return min(max(side, _LEAST_SIDE), _MOST_SIDE) / side


def side_by_side(photo: Pixels, drawn: Pixels, title: str) -> Image.Image:
    """Return a panel: the photo, its overlay, and a title above them.

    Args:
        photo: uint8, ``(H, W, 3)``.
        drawn: The overlay, of the same shape.
        title: Lines of text.
    """
    height, width, _ = photo.shape
    font = ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _TEXT)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, _, text_width, text_height = ruler.multiline_textbbox((0, 0), title, font=font)
    top = int(text_height) + 2 * _MARGIN
    whole = max(2 * width + 3 * _MARGIN, int(text_width) + 2 * _MARGIN)
    panel = Image.new("RGB", (whole, top + height + _MARGIN), "white")
    ImageDraw.Draw(panel).multiline_text((_MARGIN, _MARGIN), title, "black", font)
    panel.paste(Image.fromarray(photo), (_MARGIN, top))
    panel.paste(Image.fromarray(drawn), (2 * _MARGIN + width, top))
    return panel
