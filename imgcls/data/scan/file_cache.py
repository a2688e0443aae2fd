"""What is known of files that were looked at before, by path, size and time of change: nothing is read twice."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from imgcls.runtime.atomic_files import regular

log = logging.getLogger(__name__)

_FILE = "files-2"  # the number of this layout
_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, width INTEGER, height INTEGER, content TEXT
) WITHOUT ROWID
"""
_KNOWN = """
SELECT * FROM files WHERE path BETWEEN ? AND ? AND typeof(content) IN ('text', 'null')
AND 'text' NOT IN (typeof(size), typeof(mtime_ns), typeof(ctime_ns), typeof(width), typeof(height))
AND 'blob' NOT IN (typeof(size), typeof(mtime_ns), typeof(ctime_ns), typeof(width), typeof(height))
"""  # SQLite keeps a text in a column of numbers, too; and what belongs to other data lies elsewhere
_BUSY = 60.0  # seconds that one program waits for another


class Stamp(NamedTuple):
    """What changes when a file does.

    Args:
        size: Size in bytes.
        mtime_ns: Time of the last change of its content in nanoseconds, which archives and copies set as they like.
        ctime_ns: Time of the last change of the file's entry, which nobody can set.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


class Facts(NamedTuple):
    """What is known of a file; None where nothing is.

    Args:
        stamp: The file's stamp when it was looked at.
        width: Width in pixels, as its header says.
        height: Height in pixels.
        content: Hash of its bytes.
    """

    stamp: Stamp
    width: int | None = None
    height: int | None = None
    content: str | None = None


class Ledger:
    """Remembers facts in a small database; where it cannot be written, that is said once and nothing is remembered.

    Args:
        folder: The folder of the database.
        suffix: Behind its name, where the contents are hashed in another way.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self.path = folder / f"{_FILE}{suffix}.db"
        self._usable = True

    def recall(self, paths: Iterable[str]) -> dict[str, Facts]:
        """Return what is known of files, whether they have changed since or not."""
        wanted = {_key(path): path for path in paths}
        found: dict[str, Facts] = {}
        if wanted:
            with self._open() as database:
                for key, size, mtime_ns, ctime_ns, *rest in database.execute(_KNOWN, (min(wanted), max(wanted))):
                    if key in wanted:
                        found[wanted[key]] = Facts(Stamp(size, mtime_ns, ctime_ns), *rest)
        return found

    def remember(self, facts: Mapping[str, Facts]) -> None:
        """Write down what is known of files, in place of what was known before."""
        rows = [(_key(path), *known.stamp, *known[1:]) for path, known in facts.items()]
        if rows:
            with self._open() as database, database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the database, or an empty one in memory where it cannot be used, which is said once."""
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
                    pass  # no link, and no pipe that would never end
                return _made(str(self.path))
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
        return _made(":memory:")

    def _give_up(self, error: Exception) -> None:
        if self._usable:
            log.info("%s cannot be used (%s): images are looked at anew in each run", self.path, error)
        self._usable = False


def _made(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY)
    database.execute(_TABLE)
    return database


def _key(path: str) -> bytes:
    return os.fsencode(path if os.path.isabs(path) else os.path.abspath(path))
