"""The images that a command line gives: files, folders and lists."""

import csv
import os

from imgcls.datasets.folder import scan_folder
from imgcls.errors import ConfigError


def find_images(paths: list[str]) -> list[str]:
    """Turn files, folders (recursive) and CSV files with a ``path`` column into a sorted list, each file once.

    Paths in a CSV are relative to the CSV.

    Raises:
        ConfigError: If a path does not exist, a folder holds no file, or a CSV has no ``path`` column, no row, or a row
            without a path.
    """
    found: dict[str, str] = {}
    for path in paths:
        for file in _expand(os.path.expanduser(path)):
            found.setdefault(os.path.abspath(file), file)
    return sorted(found.values())


def _expand(path: str) -> list[str]:
    if os.path.isdir(path):
        files, _ = scan_folder(path)
        if not files:
            raise ConfigError(f"--images {path}: the folder holds no image")
        return files
    if not os.path.lexists(path):
        raise ConfigError(f"--images {path}: no such file or folder")
    if path.lower().endswith(".csv"):
        return _paths_in_csv(path)
    return [path]


def _paths_in_csv(path: str) -> list[str]:
    columns, *rows = _read_csv(path) or [[]]
    if "path" not in columns:
        raise ConfigError(f"--images {path}: has no column 'path'; it has {', '.join(map(repr, columns)) or 'none'}")
    place = columns.index("path")
    # numbered as a spreadsheet does; an empty line is no row
    files = {number: "".join(row[place : place + 1]) for number, row in enumerate(rows, 2) if row}
    if not files:
        raise ConfigError(f"--images {path}: lists no image; there is no row below the head")
    for number, file in files.items():
        if not file.strip():
            raise ConfigError(f"--images {path}: row {number} has no path; give it one, or remove the row")
    return [os.path.join(os.path.dirname(path), file) for file in files.values()]


def _read_csv(path: str) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv.reader(file))
    except (csv.Error, OSError) as error:
        raise ConfigError(f"--images {path}: cannot be read as CSV: {error}") from error
