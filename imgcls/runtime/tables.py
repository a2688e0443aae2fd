"""Tables and results: print to the terminal, write to CSV and JSON."""

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imgcls.runtime.atomic_files import replacing_text, write_text


def print_results(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table with one row per metric and one column per split: split -> logged name -> value."""
    names = dict.fromkeys(name.removeprefix(f"{split}_") for split, values in results.items() for name in values)
    rows = [[name, *(_cell(values.get(f"{split}_{name}")) for split, values in results.items())] for name in names]
    print_table([["metric", *results], *rows])


def write_results(
    path: Path,
    epoch: int | None,
    results: Mapping[str, Mapping[str, float]],
    about: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the logged values to a JSON file.

    Args:
        path: The file; an existing one is replaced.
        epoch: Zero-based epoch of the evaluated weights; None if there is no best epoch.
        results: Split -> logged name -> value; non-finite values become null.
        about: Further keys, put in front.
        details: Further keys, put last.
    """
    values = {name: value for found in results.values() for name, value in found.items()}
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    write_text(path, json.dumps({**(about or {}), "epoch": epoch, **finite, **(details or {})}, indent=2) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as a CSV file, without its index; an existing file is replaced."""
    texts = (value for name in table for value in table[name] if isinstance(value, str))
    # Python before 3.13 does not quote a carriage return, which readers take for the end of a row
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if any("\r" in text for text in texts) else csv.QUOTE_MINIMAL
    with replacing_text(path) as file:
        table.to_csv(file, index=False, quoting=quoting)


def write_rows(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whose texts need not be UTF-8, which pandas refuses; None becomes an empty cell.

    An existing file is replaced.
    """
    with replacing_text(path) as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table; as plain text if standard output is not a terminal. Numbers are aligned at the right.

    The heading is the first row.
    """
    columns = [[printable(cell) for cell in column] for column in zip(*rows, strict=True)]
    of_numbers = [number > 0 and all(map(_is_number, column[1:])) for number, column in enumerate(columns)]
    console = Console()
    if console.is_terminal:
        table = Table()
        for (heading, *_), right in zip(columns, of_numbers, strict=True):
            table.add_column(Text(heading), justify="right" if right else "left")
        for row in list(zip(*columns, strict=True))[1:]:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    # not by rich, which takes 4 s for 5,000 rows
    widths = [max(map(cell_len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        padded = ((cell, " " * (width - cell_len(cell))) for cell, width in zip(row, widths, strict=True))
        cells = zip(padded, of_numbers, strict=True)
        print("  ".join(pad + cell if right else cell + pad for (cell, pad), right in cells).rstrip())


def short_path(path: str | Path) -> str:
    """Return a path relative to the working directory if it is below it; any other text unchanged."""
    here, text = Path.cwd(), str(path)
    return str(Path(text).relative_to(here)) if Path(text).is_absolute() and here in Path(text).parents else text


def counted(count: int, noun: str) -> str:
    """Return a number and a noun: ``1 image``, ``1,024 images``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def shown(text: str) -> str:
    """Return a text in one line, with escapes for unprintable characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable(text: str) -> str:
    """Return a text in one line that standard output can encode."""
    encoding = sys.stdout.encoding or "utf-8"
    return shown(text).encode(encoding, errors="backslashreplace").decode(encoding)


def _is_number(cell: str) -> bool:
    return cell in {"", "-"} or cell.replace(".", "", 1).replace(",", "").removeprefix("-").isdecimal()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def values_text(values: Mapping[str, float]) -> str:
    """Return dotted key -> value as text, each with the last part of its key: "lr 0.0003, weight decay 0.05"."""
    return ", ".join(f"{key.rpartition('.')[2].replace('_', ' ')} {value:g}" for key, value in values.items())
