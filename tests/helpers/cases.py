"""What is expected of one image file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Colour: TypeAlias = tuple[int, int, int]
Probes: TypeAlias = dict[tuple[int, int], Colour]  # (x, y) of the upright picture -> what stands there

RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
QUARTERS: Probes = {(8, 4): RED, (24, 4): BLUE, (8, 12): GREEN, (24, 12): BLACK}
GREY_QUARTERS: Probes = {(8, 4): (76,) * 3, (24, 4): (29,) * 3, (8, 12): (150,) * 3, (24, 12): BLACK}
LOSSY = 30  # tolerance of a lossy format in a picture of 32 x 16 pixels

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Expected:
    """Of a good file size and pixels, of a bad one the reason.

    Args:
        good: Whether it can be read.
        size: Width and height of the upright picture.
        probes: Pixels of the upright picture.
        tolerance: How far a channel may be from its probe.
        reason: Words of the refusal.
        late: Whether the header of a bad file is right, so that only decoding shows that it is bad.
    """

    good: bool
    size: tuple[int, int] = (32, 16)
    probes: Probes = field(default_factory=dict)
    tolerance: int = 0
    reason: str = ""
    late: bool = False


@dataclass(frozen=True)
class File:
    """A file that is not yet written."""

    name: str
    content: bytes
    expected: Expected


@dataclass(frozen=True)
class Case:
    """A file on disk, whose name need not be UTF-8."""

    path: Path
    expected: Expected


def good(name: str, content: bytes, probes: Probes = QUARTERS, tolerance: int = 0, **other: Any) -> File:
    return File(name, content, Expected(True, probes=probes, tolerance=tolerance, **other))


def bad(name: str, content: bytes, reason: str, late: bool = False) -> File:
    return File(name, content, Expected(False, reason=reason, late=late))


def grey(*values: int) -> Probes:
    """The shades of a first row."""
    return {(x, 0): (value,) * 3 for x, value in enumerate(values)}
