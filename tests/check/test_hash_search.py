"""Near hashes are found among all without comparing all with all, and they are exactly those."""

import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from imgcls.check import hash_search
from imgcls.check import near_duplicates as near
from imgcls.check.hash_search import BITS, near_pairs
from imgcls.runtime import progress

Hashes = NDArray[np.uint64]


def all_with_all(views: Hashes, neighbours: int) -> list[tuple[int, int, int]]:
    """The search that compares each image with each."""
    found = []
    for image in range(len(views)):
        bits = np.bitwise_count(views[image, 0] ^ views).min(axis=1)
        bits[image] = BITS + 1
        others = np.flatnonzero(bits <= BITS)
        others = others[np.argsort(bits[others], kind="stable")[:neighbours]]
        found += [(image, int(bits[other]), int(other)) for other in others]
    return found


def flipped(hashes: Hashes, generator: np.random.Generator, most: int) -> Hashes:
    """Hashes that differ from others in up to so many bits."""
    flips = [sum(1 << int(bit) for bit in generator.permutation(64)[: generator.integers(most + 1)]) for _ in hashes]
    return hashes ^ np.array(flips, dtype=np.uint64)


def planted(count: int, clusters: int, most: int, seed: int) -> Hashes:
    """Hashes of images and their views, with clusters of near ones."""
    generator = np.random.default_rng(seed)
    middles = generator.integers(0, 2**64, clusters, dtype=np.uint64)
    firsts = flipped(middles[generator.integers(0, clusters, count)], generator, most)
    return np.stack([firsts, *(flipped(firsts, generator, 4) for _ in range(5))], axis=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("count", "clusters", "most"),
    [
        (0, 1, 0),
        (1, 1, 0),
        (700, 700, 0),  # at random: next to none is near
        (700, 200, 6),  # pairs at about the limit
        (700, 20, 12),  # most of them beyond it
        (300, 1, 3),  # all near to all, more than are kept
        (300, 3, 0),  # the same hashes
    ],
)
def test_near_hashes_are_those_of_the_search_of_all_with_all(count: int, clusters: int, most: int, seed: int) -> None:
    views = planted(count, clusters, most, seed)
    assert list(near_pairs(views, 10)) == all_with_all(views, 10)


def test_hashes_that_differ_in_the_last_bits_that_may_differ() -> None:
    """However the bits lie in the parts: 8 are found, and 9 are not."""
    generator = np.random.default_rng(0)
    for bits, expected in ((BITS, 2000), (BITS + 1, 0)):
        first = generator.integers(0, 2**64, 1000, dtype=np.uint64)
        other = first ^ np.array([sum(1 << int(b) for b in generator.permutation(64)[:bits]) for _ in first], np.uint64)
        views = np.concatenate([first, other])[:, None]
        assert len(list(near_pairs(views, 10))) == expected


@pytest.mark.parametrize("dense", [0, 10**9])
def test_tables_and_the_comparison_of_all_find_the_same(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_search, "_DENSE", dense)
    for views in (planted(300, 1, 3, seed=1), planted(700, 200, 6, seed=2)):
        assert list(near_pairs(views, 10)) == all_with_all(views, 10)


def test_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 36 million pairs of an image and a view less than one in a hundred."""
    counted = []
    count = np.bitwise_count

    def counting(bits: Hashes) -> NDArray[np.uint8]:
        counted.append(bits.size)
        return count(bits)

    views = np.random.default_rng(0).integers(0, 2**64, (2448, 6), dtype=np.uint64)
    monkeypatch.setattr(np, "bitwise_count", counting)
    near.find_candidates(views)
    assert 0 < sum(counted) < 360_000


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    near.find_candidates(planted(1500, 1500, 0, seed=0))
    assert "comparing hashes: 1 of 3" in caplog.text
