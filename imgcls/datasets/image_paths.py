"""The images that a command line gives: files, folders and lists."""

import os

from imgcls.datasets.csv_dataset import read_table
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
        try:
            files = _expand(os.path.expanduser(path))
        except ConfigError as error:
            raise ConfigError(f"--images {error}") from error
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    return sorted(found.values())


def _expand(path: str) -> list[str]:
    if os.path.isdir(path):
        files, _ = scan_folder(path)
        if not files:
            raise ConfigError(f"{path}: the folder holds no image")
        return files
    if not os.path.lexists(path):
        raise ConfigError(f"{path}: no such file or folder")
    if path.lower().endswith(".csv"):
        return _paths_in_csv(path)
    return [path]


def _paths_in_csv(path: str) -> list[str]:
    table = read_table(path)
    if "path" not in table:
        raise ConfigError(f"{path}: has no column 'path'; it has {', '.join(map(repr, table.columns)) or 'none'}")
    if table.empty:
        raise ConfigError(f"{path}: lists no image; there is no row below the head")
    for number, file in table["path"].items():
        if not file.strip():
            raise ConfigError(f"{path}: row {number} has no path; give it one, or remove the row")
    return [os.path.join(os.path.dirname(path), file) for file in table["path"]]
