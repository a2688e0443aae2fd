"""Charts as numbers of an SVG picture, which the macro ``chart`` of ``templates/parts.jinja`` draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TICKS = 5

Values = Sequence[float] | NDArray[np.float64]


class Tick(NamedTuple):
    """A mark of an axis: position in the picture, and text."""

    at: float
    text: str


class Line(NamedTuple):
    """A line: its name, its points as SVG has them, its colour by number, and whether it is a thin one."""

    name: str
    points: list[str]
    colour: int
    thin: bool = False


class Dot(NamedTuple):
    """A point with a whisker: positions in the picture, text, and whether it deserves attention."""

    x: float
    y: float
    low: float
    high: float
    text: str
    marked: bool = False


class Bar(NamedTuple):
    """A bar: corner, width and height in the picture, and text."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass
class Chart:
    """A chart; positions are in pixels of a picture, whose axes are within ``left``, ``right``, ``top``, ``bottom``.

    Args:
        title: Its title.
        x_label: What x is, with its unit.
        y_label: What y is.
        x: Range of x.
        y: Range of y.
        note: What to see, in a sentence.
        diagonal: Whether a line from (0, 0) to (1, 1) is drawn.
    """

    width: ClassVar = 420
    height: ClassVar = 300
    left: ClassVar = 60
    right: ClassVar = 408
    top: ClassVar = 20
    bottom: ClassVar = 254

    title: str
    x_label: str
    y_label: str
    x: tuple[float, float]
    y: tuple[float, float]
    note: str = ""
    diagonal: bool = False
    x_ticks: list[Tick] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    bands: list[Bar] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    rules: list[Tick] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Put marks on the axes."""
        self.x_ticks = [Tick(self.at_x(value), text) for value, text in ticks(*self.x)]
        self.y_ticks = [Tick(self.at_y(value), text) for value, text in ticks(*self.y)]

    def at_x(self, value: float) -> float:
        """Return the position of a value of x."""
        low, high = self.x
        return round(self.left + (value - low) / (high - low) * (self.right - self.left), 1)

    def at_y(self, value: float) -> float:
        """Return the position of a value of y."""
        low, high = self.y
        return round(self.bottom - (value - low) / (high - low) * (self.bottom - self.top), 1)

    def add_line(self, name: str, xs: Values, ys: Values, *, thin: bool = False) -> None:
        """Add a line, with gaps where a value is not finite."""
        pieces: list[list[str]] = [[]]
        for x, y in zip(xs, ys, strict=True):
            if not math.isfinite(y):
                pieces.append([])
            elif (point := f"{self.at_x(x):g},{self.at_y(y):g}") not in pieces[-1][-1:]:
                pieces[-1].append(point)
        points = [" ".join(piece) for piece in pieces if piece]
        self.lines.append(Line(name, points, len(self.lines), thin))

    def add_band(self, x: float, low: float, high: float, width: float, text: str) -> None:
        """Add a vertical band around x, ``width`` pixels wide."""
        top, bottom = self.at_y(high), self.at_y(low)
        self.bands.append(Bar(round(self.at_x(x) - width / 2, 1), top, width, max(round(bottom - top, 1), 1), text))

    def add_bar(self, low: float, high: float, share: float, text: str) -> None:
        """Add a bar from the x axis upwards, ``share`` of a fifth of the picture high."""
        left, right = self.at_x(low), self.at_x(high)
        height = round(share * (self.bottom - self.top) / 5, 1)
        self.bars.append(Bar(left + 1, self.bottom - height, max(round(right - left - 2, 1), 1), height, text))

    def add_dot(
        self, x: float, y: float, text: str, whisker: tuple[float, float] | None = None, *, marked: bool = False
    ) -> None:
        """Add a point, with a whisker if it has one."""
        low, high = whisker or (y, y)
        self.dots.append(Dot(self.at_x(x), self.at_y(y), self.at_y(low), self.at_y(high), text, marked))


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return round values between two numbers, and their texts."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:.6g}") for number in count]


def span(values: Values) -> tuple[float, float]:
    """Return a range that holds the finite values, with some space."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    space = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - space, high + space
