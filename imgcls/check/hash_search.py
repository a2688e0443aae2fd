"""Multi-index hashing: find 64-bit hashes that differ in few bits without comparing all pairs (Norouzi et al., 2012).

A hash is divided into three parts. If two hashes differ in at most 8 bits, one of the parts differs in at most 2. So
only hashes with such a part need to be compared; a table for each part finds them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from imgcls.runtime.progress import tracked

BITS = 8  # of 64, by which similar hashes may differ; the most that three parts with 2 bits each can find
_PARTS = ((0, 21), (21, 21), (42, 22))  # first bit and number of bits
_BLOCK = 1 << 28  # pairs of an image and a crop per block
_MOST_ROWS = 512
_DENSE = 128  # if the tables find more than one in so many pairs, comparing all is faster

Rows = NDArray[np.int64]
Near = NDArray[np.int64]
"""``(3, pairs)``: an image, the number of differing bits, another image."""


def near_pairs(hashes: NDArray[np.uint64], neighbours: int) -> Iterator[tuple[int, int, int]]:
    """Find the nearest images of each image: those with a crop whose hash is similar to the image's first one.

    Args:
        hashes: The perceptual hashes of each image, ``(images, crops)``; the first is of the whole image.
        neighbours: Number of images to find for each image, at most; of equally near ones the first.

    Yields:
        Image, number of differing bits, other image; sorted.
    """
    tables = [_Table(hashes, *part) for part in _PARTS]
    hashes = np.asfortranarray(hashes)  # comparing one crop of all images at a time is fastest
    step = min(max(_BLOCK // max(hashes.size, 1), 1), _MOST_ROWS)
    blocks = [np.arange(start, min(start + step, len(hashes))) for start in range(0, len(hashes), step)]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda rows: _near_in(rows, tables, hashes, neighbours), blocks)
        for near in tracked(found, len(blocks), "comparing hashes"):
            yield from zip(*near.tolist(), strict=True)


def _near_in(rows: Rows, tables: list["_Table"], hashes: NDArray[np.uint64], neighbours: int) -> Near:
    spans = [table.spans_near(hashes[rows, 0]) for table in tables]
    if sum(int(counts.sum()) for _, counts in spans) * _DENSE > len(rows) * hashes.size:  # most hashes are similar
        return np.concatenate([_near_of_all(row, hashes, neighbours) for row in rows], axis=1)
    pairs = zip(tables, spans, strict=True)
    found = [_near_by(rows, hashes, table.order, starts, counts) for table, (starts, counts) in pairs]
    return _nearest(np.concatenate(found, axis=1), neighbours)


class _Table:
    """All hashes, sorted by one part of their bits."""

    def __init__(self, hashes: NDArray[np.uint64], first: int, width: int) -> None:
        self.first, self.width = np.uint64(first), width
        parts = self.part_of(hashes.ravel())
        self.order = np.argsort(parts, kind="stable")
        self.starts = np.append(0, np.cumsum(np.bincount(parts, minlength=1 << width)))
        ones = [1 << bit for bit in range(width)]
        self.changes = np.array([0, *ones, *(one | other for one, other in combinations(ones, 2))])

    def part_of(self, hashes: NDArray[np.uint64]) -> Rows:
        return ((hashes >> self.first) & np.uint64((1 << self.width) - 1)).astype(np.int64)

    def spans_near(self, hashes: NDArray[np.uint64]) -> tuple[Rows, Rows]:
        """Return the start in ``order`` and the number of hashes that may be similar to each hash."""
        parts = self.part_of(hashes)[:, None] ^ self.changes
        starts = self.starts[parts]
        return starts, self.starts[parts + 1] - starts


def _near_of_all(row: int, hashes: NDArray[np.uint64], neighbours: int) -> Near:
    """Compare an image with all, and return the nearest."""
    bits = np.bitwise_count(hashes[row, 0] ^ hashes.T).min(axis=0)
    bits[row] = BITS + 1
    others = np.flatnonzero(bits <= BITS)
    others = others[np.argsort(bits[others], kind="stable")[:neighbours]]
    return np.stack([np.full_like(others, row), bits[others], others])


def _near_by(rows: Rows, hashes: NDArray[np.uint64], order: Rows, starts: Rows, counts: Rows) -> Near:
    """Return the hashes within spans of a table that are similar to the first hash of some images."""
    own = np.repeat(rows, counts.sum(axis=1))
    counts = counts.ravel()
    positions = np.arange(len(own)) + np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
    other, column = np.divmod(order[positions], hashes.shape[1])
    bits = np.bitwise_count(hashes[own, 0] ^ hashes[other, column])
    near = (bits <= BITS) & (other != own)
    return np.stack([own[near], bits[near], other[near]])


def _nearest(near: Near, neighbours: int) -> Near:
    """Return the nearest other images of each image, each once."""
    image, bits, other = near
    near = near[:, np.lexsort((bits, other, image))]
    again = (near[[0, 2], 1:] == near[[0, 2], :-1]).all(axis=0)
    near = np.delete(near, np.flatnonzero(again) + 1, axis=1)
    near = near[:, np.lexsort((near[2], near[1], near[0]))]
    rank = np.arange(near.shape[1]) - np.searchsorted(near[0], near[0])
    return near[:, rank < neighbours]
