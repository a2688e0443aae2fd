"""The sentences of a comparison: which configuration is better, or what would tell."""

import math
import re

from imgcls.compare.comparison import ALPHA, Comparison, Pair
from imgcls.runtime.tables import short_path
from imgcls.statistics.intervals import Interval
from imgcls.statistics.paired import POWER, holm

_MOST = 1_000_000  # images that are named


def verdict(found: Comparison, pair: Pair) -> str:
    """Return which configuration of a pair has the better accuracy, or what would tell them apart."""
    metric = found.metrics[0]
    difference = pair.differences[metric.name]
    one, other = found.names(pair)
    better = found.better(pair, metric)
    p_value = p_text(pair.adjusted[metric.name])
    if better is not None:
        sign, names = (1, (one, other)) if better == one else (-1, (other, one))
        low, high = sorted(sign * limit for limit in difference.interval)
        return (
            f"{names[0]} is better than {names[1]} by {_points(sign * difference.value)} points of "
            f"{metric.title.lower()} (95 % interval {_points(low)} to {_points(high)}, {p_value})"
        )
    low, high = difference.interval
    return (
        f"{one} and {other} are not distinguishable in {metric.title.lower()} "
        f"({one} - {other}: {_points(difference.value)} points, 95 % interval {_points(low)} to {_points(high)}, "
        f"{p_value}); {what_would_tell(found, pair)}"
    )


def other_scores(found: Comparison, pair: Pair) -> str:
    """Return in which of the other scores a configuration of a pair is better; "" if in none.

    The p-values are adjusted for the number of these scores (Holm).
    """
    better: dict[str, list[str]] = {}
    metrics = [metric for metric in found.metrics[1:] if metric.paired]
    p_values = holm([pair.adjusted[metric.name] for metric in metrics])
    for metric, p_value in zip(metrics, p_values, strict=True):
        name = found.better(pair, metric)
        if name is not None and p_value < ALPHA:
            title = metric.title if metric.title[:2].isupper() else f"{metric.title[:1].lower()}{metric.title[1:]}"
            text = f"{title} ({p_text(p_value)})"
            better.setdefault(name, []).append(text)
    return "; ".join(f"{name} is better in {' and '.join(texts)}" for name, texts in better.items())


def what_would_tell(found: Comparison, pair: Pair) -> str:
    """Return how many more images, or whether more seeds, would tell a pair apart, if it differs by what was found."""
    difference = pair.differences[found.metrics[0].name]
    if not round(difference.value, 12):
        return "their accuracy is the same"
    if pair.needed is None:
        return "more seeds are needed, since no number of test images would tell them apart"
    more, split = pair.needed - len(found.images), found.images.split
    if more <= 0:
        return f"more {split} images are needed" if pair.only is not None else "more seeds are needed"
    seeds = "" if pair.only is not None else ", or fewer with more seeds"
    if more > _MOST:
        return f"more than a million further {split} images would be needed to tell them apart{seeds}"
    return f"about {_rounded(max(more, 10)):,} more {split} images would tell them apart{seeds}"


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
    if alone := _pairs_of_single_runs(found):
        which = "Each configuration has one run"
        if len(alone) < len(found.pairs):
            names = [each.name for each in found.configurations if len(each.runs) == 1]
            which = f"{', '.join(names[:-1])} and {names[-1]} have one run each"
        lines.append(
            f"{which}: comparing them compares these trained models. Another seed may reverse a small difference; "
            "to compare configurations, give runs of several seeds each."
        )
    return lines


def method(found: Comparison) -> str:
    """Return how the comparison was made."""
    alone = _pairs_of_single_runs(found)
    exact, levels = "exact McNemar test", "two-level analysis of images and seeds"
    if len(alone) == len(found.pairs):
        test, over = exact, "images"
    elif not alone:
        test, over = levels, "images and seeds"
    else:
        test = f"{exact} (pairs of single runs), {levels} (other pairs)"
        over = "images, and over seeds where there are several"
    within = ", within classes" if found.images.labels.ndim == 1 else ""
    return (
        f"{len(found.images):,} {found.images.split} images that all runs have, matched by {found.images.by}. "
        f"{found.metrics[0].title}: {test}; other scores: paired bootstrap over {over}{within}. Beside a verdict their "
        "p-values are adjusted for the number of these scores (Holm). The interval of ECE is that of the model's true "
        "calibration error, which few images make look larger. Where a number of more images "
        f"is given, so many tell two configurations apart in {POWER:.0%} of the cases, if their difference is as large "
        "as here."
    )


def _pairs_of_single_runs(found: Comparison) -> list[Pair]:
    return [pair for pair in found.pairs if pair.only is not None]


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
