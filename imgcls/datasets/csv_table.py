"""Read a CSV as text, with row numbers as in a spreadsheet."""

import codecs
import csv
import os

import pandas as pd

from imgcls.errors import ConfigError

_UTF_16 = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
_MOST_NAMED = 10  # invalid rows listed in a message


def read_table(path: str, separator: str = ",") -> pd.DataFrame:
    """Read a CSV as text.

    The csv module and not pandas, which renames repeated columns, skips rows without counting them and takes the first
    column for an index where all rows are too long. Missing values at the end of a row are empty; columns without a
    name and empty lines are dropped.

    Returns:
        The rows; the index counts them as a spreadsheet does, where the header is row 1.

    Raises:
        ConfigError: If the file cannot be read, the header repeats a column, or a row has more values than the header.
    """
    header, *lines = _read_lines(path, separator) or [[]]
    rows = {number: line for number, line in enumerate(lines, 2) if line}
    columns = {name: index for index, name in enumerate(header) if name}
    if repeated := next((name for name in columns if header.count(name) > 1), None):
        raise ConfigError(f"{path}: the header repeats the column {repeated!r}")
    long = [number for number, row in rows.items() if any(row[len(header) :])]
    refuse_rows(path, [f"row {number}: more values than columns in the header" for number in long])
    values = {name: ["".join(row[index : index + 1]) for row in rows.values()] for name, index in columns.items()}
    return pd.DataFrame(values, index=list(rows), dtype=object)


def refuse_rows(path: str, faults: list[str], advice: str = "") -> None:
    """Raise an error that lists the first invalid rows of a CSV.

    Raises:
        ConfigError: If there are any.
    """
    if faults:
        more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        raise ConfigError(f"{path}: {'; '.join(faults[:_MOST_NAMED])}{more}{f' ({advice})' if advice else ''}")


def columns_in_words(table: pd.DataFrame) -> str:
    """Return the quoted names of the columns, for messages."""
    return ", ".join(map(repr, table.columns)) or "none"


def _read_lines(path: str, separator: str) -> list[list[str]]:
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path}: is not a regular file")
    try:
        with open(path, "rb") as start:
            if start.read(2) in _UTF_16:
                raise ValueError("is UTF-16; save the table as UTF-8")
        # surrogateescape: file names need not be UTF-8
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv.reader(file, delimiter=separator, strict=True))
    except (csv.Error, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
