"""Hashes of 64 bits that differ in few bits, found without comparing all with all (Norouzi et al., CVPR 2012).

A hash is divided into three parts. Of two hashes that differ in 8 bits at most, one part differs in 2 at most: 9 bits
would be needed for 3 in each. So the hashes whose part is this one, or has one or two other bits, are all that need to
be compared; a table of each part says which these are.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from imgcls.runtime.progress import tracked

BITS = 8  # of 64, by which near hashes may differ: three parts that differ in 2 at most find no more
_PARTS = ((0, 21), (21, 21), (42, 22))  # first bit and number of bits
_BLOCK = 1 << 28  # pairs of an image and a view that a block stands for
_MOST_ROWS = 512
_DENSE = 128  # one pair in so many that the tables name, and to compare all is quicker

Rows = NDArray[np.int64]
Near = NDArray[np.int64]
"""Shape ``(3, pairs)``: an image, the bits that differ, another image."""


def near_pairs(views: NDArray[np.uint64], neighbours: int) -> Iterator[tuple[int, int, int]]:
    """Find the nearest images of each image: those of whose views one is near to the image's first view.

    Args:
        views: The hashes of each image, shape ``(images, views)``.
        neighbours: How many there are of each image at most; among those as near, the first ones.

    Returns:
        Image, bits that differ, other image; sorted.
    """
    tables = [_Table(views, *part) for part in _PARTS]
    views = np.asfortranarray(views)  # a view of all images at a time is compared fastest
    step = min(max(_BLOCK // max(views.size, 1), 1), _MOST_ROWS)
    blocks = [np.arange(start, min(start + step, len(views))) for start in range(0, len(views), step)]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda rows: _near_in(rows, tables, views, neighbours), blocks)
        for near in tracked(found, len(blocks), "comparing hashes"):
            yield from zip(*near.tolist(), strict=True)


def _near_in(rows: Rows, tables: list["_Table"], views: NDArray[np.uint64], neighbours: int) -> Near:
    spans = [table.spans_near(views[rows, 0]) for table in tables]
    if sum(int(counts.sum()) for _, counts in spans) * _DENSE > len(rows) * views.size:  # most are alike
        return np.concatenate([_near_of_all(row, views, neighbours) for row in rows], axis=1)
    pairs = zip(tables, spans, strict=True)
    found = [_near_by(rows, views, table.order, starts, counts) for table, (starts, counts) in pairs]
    return _nearest(np.concatenate(found, axis=1), neighbours)


class _Table:
    """The hashes of all views, sorted by one part of their bits."""

    def __init__(self, views: NDArray[np.uint64], first: int, width: int) -> None:
        self.first, self.width = np.uint64(first), width
        parts = self.part_of(views.ravel())
        self.order = np.argsort(parts, kind="stable")
        self.starts = np.append(0, np.cumsum(np.bincount(parts, minlength=1 << width)))
        ones = [1 << bit for bit in range(width)]
        self.changes = np.array([0, *ones, *(one | other for one, other in combinations(ones, 2))])

    def part_of(self, hashes: NDArray[np.uint64]) -> Rows:
        return ((hashes >> self.first) & np.uint64((1 << self.width) - 1)).astype(np.int64)

    def spans_near(self, hashes: NDArray[np.uint64]) -> tuple[Rows, Rows]:
        """Return where in ``order`` those begin that may be near to each hash, and how many they are."""
        parts = self.part_of(hashes)[:, None] ^ self.changes
        starts = self.starts[parts]
        return starts, self.starts[parts + 1] - starts


def _near_of_all(row: int, views: NDArray[np.uint64], neighbours: int) -> Near:
    """Return the nearest others of an image, which is compared with all."""
    bits = np.bitwise_count(views[row, 0] ^ views.T).min(axis=0)
    bits[row] = BITS + 1
    others = np.flatnonzero(bits <= BITS)
    others = others[np.argsort(bits[others], kind="stable")[:neighbours]]
    return np.stack([np.full_like(others, row), bits[others], others])


def _near_by(rows: Rows, views: NDArray[np.uint64], order: Rows, starts: Rows, counts: Rows) -> Near:
    """Return what is near to the first view of some images, of the spans of a table that may be."""
    own = np.repeat(rows, counts.sum(axis=1))
    counts = counts.ravel()
    places = np.arange(len(own)) + np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
    other, column = np.divmod(order[places], views.shape[1])
    bits = np.bitwise_count(views[own, 0] ^ views[other, column])
    near = (bits <= BITS) & (other != own)
    return np.stack([own[near], bits[near], other[near]])


def _nearest(near: Near, neighbours: int) -> Near:
    """Return the nearest others of each image, each once."""
    image, bits, other = near
    near = near[:, np.lexsort((bits, other, image))]
    again = (near[[0, 2], 1:] == near[[0, 2], :-1]).all(axis=0)
    near = np.delete(near, np.flatnonzero(again) + 1, axis=1)
    near = near[:, np.lexsort((near[2], near[1], near[0]))]
    rank = np.arange(near.shape[1]) - np.searchsorted(near[0], near[0])
    return near[:, rank < neighbours]
