"""Near duplicates: a perceptual hash finds candidates, and a comparison of aligned details decides."""

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from imgcls.check.hash_search import near_pairs
from imgcls.images import Pixels

Square = NDArray[
    np.uint8
]  # shape (side, side, 2): grey, and the share of the pixels in which a colour is at its highest
Details = NDArray[np.float32]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in shares of width and height
Pair = tuple[int, int]

SMALLEST = 32  # shorter side below which images are not compared, in pixels
COARSE, FINE = 64, 256  # sides of the squares that are compared, in pixels

# The whole image, and what a crop of a few per cent leaves of it: at the middle, or at a corner.
_CUT = 0.025
VIEWS: tuple[Box, ...] = (
    (0, 0, 1, 1),
    (_CUT / 2, _CUT / 2, 1 - _CUT / 2, 1 - _CUT / 2),
    (_CUT, _CUT, 1, 1),
    (0, _CUT, 1 - _CUT, 1),
    (_CUT, 0, 1, 1 - _CUT),
    (0, 0, 1 - _CUT, 1 - _CUT),
)
_HASH_SIDE = 32  # pixels that imagehash.phash looks at
_NEIGHBOURS = 10  # candidates for each image, at most
_AT_ONCE = 2000  # pairs whose images are in memory together

_STEPS = {COARSE: 6, FINE: 3}  # of the alignment
_LARGEST_CUT = 0.06
_MARGIN = 0.05  # share at each border that is not compared: the other image may end there
_HIGHEST = 254  # of 255, from which a colour may have been cut off
_SMEARED = 7  # pixels of the compared squares over which the blur spreads what was cut off
_EVEN = 0.5  # standard deviation of the details below which an image holds nothing to compare, in grey levels
_PLACE = 4  # side of a place, in pixels of the compared squares

# By how much two aligned images differ that are copies. Measured on 2,624 solar cells, much alike: the two most alike
# differ by 0.0199, and by 0.017 where all are shrunk to 200, 150, 128, 96 or 64 pixels; of their copies, 94 in 100 as
# JPEG of quality 60, and 98 in 100 resized, cropped by 2 % or made brighter by 10 %, differ by less than this.
_SAME = 0.016
_ALIKE, _UNLIKE = 0.03, 0.3  # a pair may differ by more where neither image has any likeness to a third one


class Group(NamedTuple):
    """Images that are near duplicates of each other, and by how much two that were compared differ at most."""

    members: list[int]
    difference: float


def search(views: NDArray[np.uint64], read: Callable[[list[int]], dict[int, Square]]) -> list[Group]:
    """Find the groups of near duplicates.

    Args:
        views: The hashes of each image, shape ``(images, views)``.
        read: Returns some of the images as squares of ``FINE`` pixels.
    """
    candidates = sorted(find_candidates(views).items())
    differences: dict[Pair, float] = {}
    for start in range(0, len(candidates), _AT_ONCE):
        some = candidates[start : start + _AT_ONCE]
        squares = read(sorted({place for pair, _ in some for place in pair}))
        with ThreadPoolExecutor() as pool:
            compared = pool.map(lambda item, known=squares: _compare(known, *item), some)
        differences |= {pair: found for (pair, _), found in zip(some, compared, strict=True)}
    return _join(differences, len(views))


def _compare(squares: dict[int, Square], pair: Pair, box: Box) -> float:
    first, second = (squares[place] for place in pair)
    coarse, box = compare(first, second, box, COARSE)
    if coarse >= 2 * _UNLIKE:
        return 1.0
    side = min(FINE, len(first), len(second))
    # the fewer pixels there are, the more alike are different images; measured below 256 pixels
    factor: float = min(FINE / side, 2) ** 1.6
    return min(compare(first, second, box, side)[0] * factor, 1.0)


def _join(differences: dict[Pair, float], count: int) -> list[Group]:
    """Join the pairs that are copies into groups."""
    likened = Counter(place for pair, found in differences.items() if _SAME < found < _UNLIKE for place in pair)
    copies = [
        (pair, found)
        for pair, found in differences.items()
        if found <= _SAME or (found <= _ALIKE and all(likened[place] == 1 for place in pair))
    ]
    places = np.array([pair for pair, _ in copies], dtype=np.intp).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(copies)), (places[0], places[1])), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    members: dict[int, set[int]] = defaultdict(set)
    largest: dict[int, float] = defaultdict(float)
    for pair, found in copies:
        number = int(numbers[pair[0]])
        members[number].update(pair)
        largest[number] = max(largest[number], found)
    return sorted(Group(sorted(members[number]), largest[number]) for number in members)


def shrink(pixels: Pixels, side: int) -> Square:
    """Return an image as a square, no larger than its shorter side."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.split(pixels)
    bright = cv2.inRange(cv2.max(cv2.max(red, green), blue), _HIGHEST, 255)
    side = min(side, *grey.shape)
    return _resize(np.dstack([grey, bright]), side)


def is_even(square: Square) -> bool:
    """Whether an image is of nearly one shade, so that there is nothing to compare."""
    return bool(details(square).std() < _EVEN)


def _resize(square: Square, side: int) -> Square:
    way = cv2.INTER_AREA if side <= min(square.shape[:2]) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (side, side), interpolation=way), dtype=np.uint8)


def hashes(square: Square) -> NDArray[np.uint64]:
    """Return the perceptual hash of each view of an image, shape ``(views,)``."""
    side = min(len(square), 4 * _HASH_SIDE)
    image = Image.fromarray(np.ascontiguousarray(_resize(square, side)[:, :, 0]))
    boxes = [(side * left, side * top, side * right, side * bottom) for left, top, right, bottom in VIEWS]
    small = [image.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS, box) for box in boxes]
    bits = np.array([imagehash.phash(view).hash.ravel() for view in small])
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def find_candidates(views: NDArray[np.uint64]) -> dict[Pair, Box]:
    """Return the pairs whose hashes are near: the first image, whole, looks like this box of the second.

    Args:
        views: The hashes of each image, shape ``(images, views)``.
    """
    nearest: dict[Pair, tuple[int, Pair]] = {}
    for image, bits, other in near_pairs(views, _NEIGHBOURS):
        key, found = (min(image, other), max(image, other)), (bits, (image, other))
        nearest[key] = min(nearest.get(key, found), found)
    return {pair: _view_of(views, pair) for _, pair in nearest.values()}


def _view_of(views: NDArray[np.uint64], pair: Pair) -> Box:
    whole, other = pair
    return VIEWS[int(np.bitwise_count(views[whole, 0] ^ views[other]).argmin())]


def compare(first: Square, second: Square, box: Box, side: int) -> tuple[float, Box]:
    """Align two images, and return the share of their details in which they differ, 0..1, and the aligned box.

    Brightness and contrast do not count, nor what was made so bright in one of them that a colour is at its highest.

    Args:
        first: An image that looks, as a whole, like a part of the other.
        second: The other image.
        box: That part.
        side: Side of the squares that are compared, in pixels.
    """
    whole, source = _resize(first, side), _resize(second, side)
    wanted, bright = _cut_out(details(whole), VIEWS[0]), _cut_out(whole[:, :, 1], VIEWS[0])
    shown, source_bright = details(source), source[:, :, 1]
    best = (1.0, box)
    for _ in range(_STEPS[COARSE if side <= COARSE else FINE]):
        found = _cut_out(shown, box)
        lost = cv2.blur(np.abs(bright - _cut_out(source_bright, box)), (_SMEARED, _SMEARED)) > 1
        best = min(best, (_difference(wanted, found, ~lost), box))
        box = _move(wanted, found, box)
        if max(abs(edge - end) for edge, end in zip(box, VIEWS[0], strict=True)) > _LARGEST_CUT:
            break
    return best


def details(square: Square) -> Details:
    """Return what is left of an image without its coarse shades, and without its noise."""
    pixels = square[:, :, 0].astype(np.float32)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 2) - cv2.GaussianBlur(pixels, (0, 0), 4), dtype=np.float32)


def _cut_out(source: Details | Square, box: Box) -> Details:
    """Return a box of one plane, at half its size: details are smooth."""
    (left, top, right, bottom), side = box, len(source)
    half = side // 2
    x_step, y_step = (right - left) * side / half, (bottom - top) * side / half
    # a pixel's place is that of its middle
    x_start, y_start = left * side + (x_step - 1) / 2, top * side + (y_step - 1) / 2
    matrix = np.array([[x_step, 0, x_start], [0, y_step, y_start]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(source.astype(np.float32), matrix, (half, half), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cut, dtype=np.float32)


def _difference(wanted: Details, found: Details, counts: NDArray[np.bool]) -> float:
    """Weigh what differs on the whole against what differs at the worst place.

    A copy that was compressed differs a little everywhere; another picture of the same kind differs much somewhere.
    """
    first, second = (_inner(square) * _crop(counts) for square in (wanted, found))
    power = float((first * first).mean())
    gain = float((first * second).mean()) / max(float((second * second).mean()), 1e-6)
    if power < _EVEN**2 or gain <= 0:
        return 1.0
    differing = cv2.blur((first - gain * second) ** 2, (_PLACE, _PLACE)) / power
    return min(float(np.sqrt(differing.mean() * differing.max())), 1.0)


def _move(wanted: Details, found: Details, box: Box) -> Box:
    """Move the four edges of a box by one step of least squares (Lucas and Kanade)."""
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
    inner = _crop(square)
    return np.asarray(inner - inner.mean(), dtype=np.float32)


def _crop(square: NDArray[Any]) -> NDArray[Any]:
    cut = round(len(square) * _MARGIN)
    return square[cut : len(square) - cut, cut : len(square) - cut]
