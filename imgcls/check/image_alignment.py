"""Align two images, and measure how much their details differ."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imgcls.images import Pixels

Square = NDArray[np.uint8]
"""``(side, side, 2)``: grey values, and the share of pixels, 0..255, in which a colour is saturated."""
Details = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of width and height."""

COARSE, FINE = 64, 256  # sides of compared squares, in pixels
WHOLE: Box = (0, 0, 1, 1)

_ITERATIONS = {COARSE: 6, FINE: 3}  # of the alignment
_LARGEST_CROP = 0.06  # share at a border
_MARGIN = 0.05  # share at each border that is not compared, since the other image may end there
_SATURATED = 254  # of 255; colours from here on may have been clipped
_BLUR = 7  # pixels of a compared square over which clipped colours spread
_FLAT = 0.5  # standard deviation of the details, in grey levels, below which there is nothing to compare
_WINDOW = 4  # side of a local window, in pixels of a compared square


def shrink(pixels: Pixels, side: int) -> Square:
    """Return an image, uint8, ``(H, W, 3)``, RGB, as a square of ``side`` pixels, no larger than its shorter side."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.split(pixels)
    saturated = cv2.inRange(cv2.max(cv2.max(red, green), blue), _SATURATED, 255)
    return resize(np.dstack([grey, saturated]), min(side, *grey.shape))


def resize(square: Square, side: int) -> Square:
    """Resize a square or an image of two planes to ``(side, side, 2)``."""
    interpolation = cv2.INTER_AREA if side <= min(square.shape[:2]) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (side, side), interpolation=interpolation), dtype=np.uint8)


def is_flat(square: Square) -> bool:
    """Whether an image has nearly one shade, so that there is nothing to compare."""
    return bool(_details(square).std() < _FLAT)


def compare(first: Square, second: Square, box: Box, side: int) -> tuple[float, Box]:
    """Align two images, and return the share of details in which they differ, 0..1, and the aligned box.

    Differences in brightness and contrast are ignored, and so are regions that are saturated in one of the images.

    Args:
        first: An image that looks like a part of the other.
        second: The other image.
        box: That part.
        side: Side of the compared squares, in pixels.
    """
    whole, source = resize(first, side), resize(second, side)
    wanted, saturated = _crop_to(_details(whole), WHOLE), _crop_to(whole[:, :, 1], WHOLE)
    source_details, source_saturated = _details(source), source[:, :, 1]
    best = (1.0, box)
    for _ in range(_ITERATIONS[COARSE if side <= COARSE else FINE]):
        found = _crop_to(source_details, box)
        clipped = cv2.blur(np.abs(saturated - _crop_to(source_saturated, box)), (_BLUR, _BLUR)) > 1
        best = min(best, (_difference(wanted, found, ~clipped), box))
        box = _move(wanted, found, box)
        if max(abs(edge - end) for edge, end in zip(box, WHOLE, strict=True)) > _LARGEST_CROP:
            break
    return best


def _details(square: Square) -> Details:
    """Return a band-pass of the grey values, without coarse shades and noise."""
    pixels = square[:, :, 0].astype(np.float32)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 2) - cv2.GaussianBlur(pixels, (0, 0), 4), dtype=np.float32)


def _crop_to(source: Details | Square, box: Box) -> Details:
    """Return a box of one plane, at half its size, which is enough for smooth details."""
    (left, top, right, bottom), side = box, len(source)
    half = side // 2
    x_step, y_step = (right - left) * side / half, (bottom - top) * side / half
    # positions refer to the middle of a pixel
    x_start, y_start = left * side + (x_step - 1) / 2, top * side + (y_step - 1) / 2
    matrix = np.array([[x_step, 0, x_start], [0, y_step, y_start]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(source.astype(np.float32), matrix, (half, half), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, dtype=np.float32)


def _difference(wanted: Details, found: Details, is_compared: NDArray[np.bool]) -> float:
    """Return the geometric mean of the average and the largest local difference.

    A compressed copy differs slightly everywhere; another picture of the same kind differs strongly somewhere.
    """
    first, second = (_inner(square) * _without_margin(is_compared) for square in (wanted, found))
    power = float((first * first).mean())
    gain = float((first * second).mean()) / max(float((second * second).mean()), 1e-6)
    if power < _FLAT**2 or gain <= 0:
        return 1.0
    local = cv2.blur((first - gain * second) ** 2, (_WINDOW, _WINDOW)) / power
    return min(float(np.sqrt(local.mean() * local.max())), 1.0)


def _move(wanted: Details, found: Details, box: Box) -> Box:
    """Move the four edges of a box by one least-squares step (Lucas and Kanade)."""
    along = _ramp(len(found))
    x_slope = cv2.Sobel(found, cv2.CV_32F, 1, 0, scale=1 / 8)
    y_slope = cv2.Sobel(found, cv2.CV_32F, 0, 1, scale=1 / 8)
    by_edge = [x_slope * (1 - along), y_slope * (1 - along.T), x_slope * along, y_slope * along.T]
    columns = np.stack([_inner(column).ravel() for column in (found, *by_edge)])
    ridge = np.eye(len(columns), dtype=np.float32) * 1e-3
    gain, *moves = np.linalg.solve(columns @ columns.T + ridge, columns @ _inner(wanted).ravel())
    if gain <= 0:
        return box
    size = (box[2] - box[0], box[3] - box[1]) * 2
    left, top, right, bottom = (
        edge + float(move / gain) * share / len(found) for edge, move, share in zip(box, moves, size, strict=True)
    )
    return left, top, right, bottom


@lru_cache
def _ramp(side: int) -> Details:
    return np.asarray((np.arange(side) + 0.5) / side, dtype=np.float32)[None, :]


def _inner(square: Details) -> Details:
    inner = _without_margin(square)
    return np.asarray(inner - inner.mean(), dtype=np.float32)


def _without_margin(square: NDArray[Any]) -> NDArray[Any]:
    margin = round(len(square) * _MARGIN)
    return square[margin : len(square) - margin, margin : len(square) - margin]
