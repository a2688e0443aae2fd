"""The comparison as text for the terminal."""

from textwrap import fill

from imgcls.compare.comparison import Comparison, Configuration, Metric
from imgcls.compare.sentences import (
    interval_text,
    method,
    number,
    other_scores,
    remarks,
    setting_text,
    unbroken,
    verdict,
)
from imgcls.runtime.tables import print_table, printable, short_path

_COLUMNS = 100
_SETTINGS = 20  # rows
_PAIRS = 10
_LONGEST = 40  # characters of a value


def print_tables(found: Comparison) -> None:
    """Print configurations and scores."""
    print_table([["", "run", "seed"], *_runs(found)])
    print()
    if found.settings:
        rows = ([row.key, *map(_cut, map(setting_text, row.values))] for row in found.settings[:_SETTINGS])
        print_table([["differs", *(each.name for each in found.configurations)], *rows])
        if len(found.settings) > _SETTINGS:
            print(f"... and {len(found.settings) - _SETTINGS} more keys")
    else:
        print("The configurations are the same, but for the seed")
    print()
    heading = ["", *(metric.title for metric in found.metrics)]
    print_table([heading, *([each.name, *_scores(found.metrics, each)] for each in found.configurations)])


def conclusions(found: Comparison) -> str:
    """Return the verdicts, and what limits them, as lines of text."""
    lines = [""]
    for pair in found.pairs[:_PAIRS]:
        others = other_scores(found, pair)
        lines.append(f"{verdict(found, pair)}." + (f" Other scores: {others}." if others else ""))
    if len(found.pairs) > _PAIRS:
        lines.append(f"... and {len(found.pairs) - _PAIRS} more pairs, in the files of --output and --json")
    every = [*lines, "", method(found), *remarks(found)]
    return "\n".join(map(_filled, every))


def _runs(found: Comparison) -> list[list[str]]:
    return [
        [each.name, short_path(folder), seed]
        for each in found.configurations
        for folder, seed in zip(each.folders, each.seeds, strict=True)
    ]


def _scores(metrics: list[Metric], configuration: Configuration) -> list[str]:
    cells = []
    for metric in metrics:
        value = configuration.values[metric.name]
        interval = interval_text(value.interval, metric.share)
        cells.append(number(value.value, metric.share) + (f" ({interval})" if interval else ""))
    return cells


def _filled(line: str) -> str:
    lines = fill(unbroken(line), _COLUMNS, subsequent_indent="  ").replace("\N{NO-BREAK SPACE}", " ").split("\n")
    return "\n".join(map(printable, lines))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
