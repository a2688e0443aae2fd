"""The images named on the command line: files, folders and CSV files."""

import logging
import os

from imgcls.datasets.csv_table import columns_in_words, read_table
from imgcls.datasets.folder_scan import scan_folder
from imgcls.errors import ConfigError, listed

log = logging.getLogger(__name__)


def find_images(paths: list[str]) -> list[str]:
    """Expand files, folders (recursive) and CSV files with a ``path`` column to a sorted list, each file once.

    Paths in a CSV are relative to the CSV.

    Raises:
        ConfigError: If a path does not exist, a folder has no image, or a CSV has no ``path`` column, no row or a row
            without a path.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            files = expand_path(path)
        except ConfigError as error:
            raise ConfigError(f"--images {error}") from error
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    return sorted(found.values())


def expand_path(path: str) -> list[str]:
    """Return the file, the images of the folder (recursive), or the images that the CSV file names.

    Raises:
        ConfigError: As ``find_images``.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        files, ignored = scan_folder(path)
        if not files:
            raise ConfigError(f"{path}: the folder contains no image")
        if ignored:
            names = [f"{os.path.relpath(file, path)} ({rule})" for file, rule in sorted(ignored.items())]
            log.info("%s: ignoring %s", path, listed(names, 3))
        return files
    if not os.path.lexists(path):
        raise ConfigError(f"{path}: no such file or folder")
    if path.lower().endswith(".csv"):
        return _paths_in_csv(path)
    return [path]


def _paths_in_csv(path: str) -> list[str]:
    table = read_table(path)
    if "path" not in table:
        raise ConfigError(f"{path}: no column 'path'; the columns are {columns_in_words(table)}")
    if table.empty:
        raise ConfigError(f"{path}: no image; there is no row below the header")
    for number, file in table["path"].items():
        if not file.strip():
            raise ConfigError(f"{path}: row {number} has no path; add one, or remove the row")
    return [os.path.join(os.path.dirname(path), file) for file in table["path"]]
