"""The sentences of a comparison: which configuration is better, or what would tell."""

import math
import re

from imgcls.compare.comparison import Comparison, Pair
from imgcls.runtime.tables import short_path
from imgcls.statistics.intervals import Interval
from imgcls.statistics.paired import POWER

_MOST = 1_000_000  # images that are named


def verdict(found: Comparison, pair: Pair) -> str:
    """Return which configuration of a pair has the better accuracy, or what would tell them apart."""
    metric = found.metrics[0]
    difference = pair.differences[metric.score.name]
    one, other = (found.configurations[index].name for index in (pair.one, pair.other))
    better = pair.better(metric)
    p_value = p_text(pair.adjusted[metric.score.name])
    if better is not None:
        sign, names = (1, (one, other)) if better == pair.one else (-1, (other, one))
        low, high = sorted(sign * limit for limit in difference.interval)
        return (
            f"{names[0]} is better than {names[1]} by {_points(sign * difference.value)} points "
            f"(95 % interval {_points(low)} to {_points(high)}, {p_value})"
        )
    low, high = difference.interval
    return (
        f"{one} and {other} are not distinguishable ({one} - {other}: {_points(difference.value)} points, "
        f"95 % interval {_points(low)} to {_points(high)}, {p_value}); {what_would_tell(found, pair)}"
    )


def what_would_tell(found: Comparison, pair: Pair) -> str:
    """Return how many more images, or whether more seeds, would tell a pair apart, if it differs by what was found."""
    difference = pair.differences[found.metrics[0].score.name]
    if not round(difference.value, 12):
        return "their accuracy is the same"
    if pair.needed is None:
        return "more seeds are needed, since no number of test images would tell them apart"
    more = pair.needed - len(found.images)
    if more > _MOST:
        return "more than a million further test images would be needed to tell them apart"
    return f"about {_rounded(max(more, 10)):,} more {found.images.split} images would tell them apart"


def remarks(found: Comparison) -> list[str]:
    """Return what limits the comparison."""
    images, lines = found.images, []
    if images.chose_epoch:
        lines.append(
            "These validation images also chose the best epoch of each run, so that all scores are somewhat too good; "
            "for an honest result, type: imgcls test RUN FOLDER for each run, and compare the folders "
            "RUN/evaluations/N that it names."
        )
    for configuration in found.configurations:
        for index, folder in zip(configuration.runs, configuration.folders, strict=True):
            if images.others[index]:
                lines.append(f"{short_path(folder)} has {images.others[index]:,} more images, which are left out.")
    if len(found.pairs) > 1:
        lines.append(f"p-values are adjusted for {len(found.pairs)} comparisons (Holm).")
    if not found.several_seeds:
        lines.append(
            "Each configuration has one run: this compares these trained models. Another seed may reverse a small "
            "difference; to compare configurations, give runs of several seeds each."
        )
    return lines


def method(found: Comparison) -> str:
    """Return how the comparison was made."""
    seeds = "over images and seeds" if found.several_seeds else "over images"
    test = "two-level analysis of images and seeds" if found.several_seeds else "exact McNemar test"
    return (
        f"{len(found.images):,} {found.images.split} images that all runs have, matched by {found.images.by}. "
        f"Accuracy: {test}; other scores: paired bootstrap {seeds}, within classes. The interval of ECE is that of the "
        "model's true calibration error, which few images make look larger. Where a number of more images is given, "
        f"so many tell two configurations apart in {POWER:.0%} of the cases, if their difference is as large as here."
    )


def p_text(value: float) -> str:
    """Return a p-value as text."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def unbroken(text: str) -> str:
    """Return a text with no-break spaces in its p-values."""
    return re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)


def setting_text(value: str) -> str:
    """Return a value of a configuration; one that is null is chosen by imgcls."""
    return "default" if value == "null" else value


def number(value: float, share: bool) -> str:
    """Return a score, in per cent if it is a share."""
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"


def interval_text(interval: Interval | None, share: bool) -> str:
    """Return an interval, without the unit."""
    if interval is None or math.isnan(interval.low):
        return ""
    return "-".join(f"{100 * limit:.1f}" if share else f"{limit:.3f}" for limit in interval)


def difference_text(value: float, share: bool) -> str:
    """Return a difference with its sign, in points if it is one of shares."""
    return f"{100 * value:+.1f}" if share else f"{value:+.3f}"


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-0.0", "0.0")


def _rounded(value: int) -> int:
    """Return a number with two significant digits."""
    digits: int = 10 ** max(len(str(value)) - 2, 0)
    return math.ceil(value / digits) * digits
