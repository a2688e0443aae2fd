"""A database of scanned files, so that an unchanged file is not read again in another run."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from imgcls.runtime.atomic_files import regular

log = logging.getLogger(__name__)

_FILE = "files-2"  # with the version of the table
_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, width INTEGER, height INTEGER, content TEXT
) WITHOUT ROWID
"""
# typeof: SQLite stores a text in an integer column as well
_SELECT = """
SELECT * FROM files WHERE path BETWEEN ? AND ? AND typeof(content) IN ('text', 'null')
AND 'text' NOT IN (typeof(size), typeof(mtime_ns), typeof(ctime_ns), typeof(width), typeof(height))
AND 'blob' NOT IN (typeof(size), typeof(mtime_ns), typeof(ctime_ns), typeof(width), typeof(height))
"""
_BUSY_SECONDS = 60.0  # to wait for another program's lock


class Stamp(NamedTuple):
    """Size and times of a file, by which a change is recognised.

    Args:
        size: Size in bytes.
        mtime_ns: Time of the last change of content, in nanoseconds; archives and copies may set it to any value.
        ctime_ns: Time of the last change of the inode, in nanoseconds; it cannot be set.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


class ScannedFile(NamedTuple):
    """Scan results of a file with that stamp: size in pixels by its header, content hash; None if unknown."""

    stamp: Stamp
    width: int | None = None
    height: int | None = None
    content: str | None = None


class FileCache:
    """Scan results in an SQLite database; if it cannot be used, one line is logged and nothing is cached.

    The suffix of its name distinguishes kinds of hashes.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self.path = folder / f"{_FILE}{suffix}.db"
        self._usable = True

    def get(self, paths: Iterable[str]) -> dict[str, ScannedFile]:
        """Return the known results of files, which may have changed since."""
        wanted = {_key(path): path for path in paths}
        found: dict[str, ScannedFile] = {}
        if wanted:
            with self._open() as database:
                for key, size, mtime_ns, ctime_ns, *rest in database.execute(_SELECT, (min(wanted), max(wanted))):
                    if key in wanted:
                        found[wanted[key]] = ScannedFile(Stamp(size, mtime_ns, ctime_ns), *rest)
        return found

    def put(self, files: Mapping[str, ScannedFile]) -> None:
        """Store results of files, replacing older ones."""
        rows = [(_key(path), *scanned.stamp, *scanned[1:]) for path, scanned in files.items()]
        if rows:
            with self._open() as database, database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the database, or an empty one in memory if it cannot be used."""
        try:
            with closing(self._connect()) as database:
                yield database
        except sqlite3.Error as error:
            self._give_up(error)

    def _connect(self) -> sqlite3.Connection:
        if self._usable:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError), open(self.path, "rb", opener=regular):
                    pass  # an error for a link, or a pipe, which would block
                return _connected(str(self.path))
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
        return _connected(":memory:")

    def _give_up(self, error: Exception) -> None:
        if self._usable:
            log.info("%s cannot be used (%s): images will be scanned again in each run", self.path, error)
        self._usable = False


def _connected(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    database.execute(_TABLE)
    return database


def _key(path: str) -> bytes:
    return os.fsencode(path if os.path.isabs(path) else os.path.abspath(path))
