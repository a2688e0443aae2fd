"""Near duplicates: perceptual hashes find candidates, and a comparison of aligned images decides."""

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from imgcls.check.hash_search import near_pairs
from imgcls.check.image_alignment import COARSE, FINE, WHOLE, Box, Square, compare, resize

Pair = tuple[int, int]

SMALLEST = 32  # pixels of the shorter side; smaller images are not compared

# the whole image, and what remains of it after cropping a few per cent in the middle or at a corner
_CUT = 0.025
CROPS: tuple[Box, ...] = (
    WHOLE,
    (_CUT / 2, _CUT / 2, 1 - _CUT / 2, 1 - _CUT / 2),
    (_CUT, _CUT, 1, 1),
    (0, _CUT, 1 - _CUT, 1),
    (_CUT, 0, 1, 1 - _CUT),
    (0, 0, 1 - _CUT, 1 - _CUT),
)
_HASH_SIDE = 32  # pixels used by imagehash.phash
_NEIGHBOURS = 10  # candidates per image, at most
_BATCH = 2000  # pairs whose images are in memory at once

# The difference of aligned copies. Measured on 2,624 solar cells, which look much alike: the most similar pair differs
# by 0.0199, and by 0.017 if all are shrunk to 200, 150, 128, 96 or 64 pixels; 94 % of their copies as JPEG of quality
# 60, and 98 % of those resized, cropped by 2 % or brightened by 10 %, differ by less than this.
_SAME = 0.016
_ALIKE, _UNLIKE = 0.03, 0.3  # a pair may differ by more if neither image resembles a third one


class Group(NamedTuple):
    """Near duplicates of each other, and the largest difference of two that were compared, 0..1."""

    members: list[int]
    difference: float


def search(hashes: NDArray[np.uint64], read: Callable[[list[int]], dict[int, Square]]) -> list[Group]:
    """Find the groups of near duplicates by perceptual hashes, ``(images, crops)``.

    ``read`` returns images by index as squares of ``FINE`` pixels.
    """
    candidates = sorted(find_candidates(hashes).items())
    differences: dict[Pair, float] = {}
    for start in range(0, len(candidates), _BATCH):
        batch = candidates[start : start + _BATCH]
        squares = read(sorted({index for pair, _ in batch for index in pair}))
        with ThreadPoolExecutor() as pool:
            compared = pool.map(lambda candidate, known=squares: _compare(known, *candidate), batch)
        differences |= {pair: found for (pair, _), found in zip(batch, compared, strict=True)}
    return _join(differences, len(hashes))


def _compare(squares: dict[int, Square], pair: Pair, box: Box) -> float:
    first, second = (squares[index] for index in pair)
    coarse, box = compare(first, second, box, COARSE)
    if coarse >= 2 * _UNLIKE:
        return 1.0
    side = min(FINE, len(first), len(second))
    # with fewer pixels, different images look more alike; measured below 256 pixels
    factor: float = min(FINE / side, 2) ** 1.6
    return min(compare(first, second, box, side)[0] * factor, 1.0)


def _join(differences: dict[Pair, float], count: int) -> list[Group]:
    """Join pairs of copies to groups."""
    similar = Counter(index for pair, found in differences.items() if _SAME < found < _UNLIKE for index in pair)
    copies = [
        (pair, found)
        for pair, found in differences.items()
        if found <= _SAME or (found <= _ALIKE and all(similar[index] == 1 for index in pair))
    ]
    ends = np.array([pair for pair, _ in copies], dtype=np.intp).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(copies)), (ends[0], ends[1])), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    members: dict[int, set[int]] = defaultdict(set)
    largest: dict[int, float] = defaultdict(float)
    for pair, found in copies:
        number = int(numbers[pair[0]])
        members[number].update(pair)
        largest[number] = max(largest[number], found)
    return sorted(Group(sorted(members[number]), largest[number]) for number in members)


def perceptual_hashes(square: Square) -> NDArray[np.uint64]:
    """Return the perceptual hash of each of ``CROPS`` of an image, ``(crops,)``."""
    side = min(len(square), 4 * _HASH_SIDE)
    image = Image.fromarray(np.ascontiguousarray(resize(square, side)[:, :, 0]))
    boxes = [(side * left, side * top, side * right, side * bottom) for left, top, right, bottom in CROPS]
    small = [image.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS, box) for box in boxes]
    bits = np.array([imagehash.phash(crop).hash.ravel() for crop in small])
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def find_candidates(hashes: NDArray[np.uint64]) -> dict[Pair, Box]:
    """Return the pairs with similar hashes, ``(images, crops)``: the first image looks like this box of the second."""
    nearest: dict[Pair, tuple[int, Pair]] = {}
    for image, bits, other in near_pairs(hashes, _NEIGHBOURS):
        key, found = (min(image, other), max(image, other)), (bits, (image, other))
        nearest[key] = min(nearest.get(key, found), found)
    return {pair: _nearest_crop(hashes, pair) for _, pair in nearest.values()}


def _nearest_crop(hashes: NDArray[np.uint64], pair: Pair) -> Box:
    whole, other = pair
    return CROPS[int(np.bitwise_count(hashes[whole, 0] ^ hashes[other]).argmin())]
