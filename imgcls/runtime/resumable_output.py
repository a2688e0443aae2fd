"""Output files that outlive a killed process, so that a later one completes them."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from imgcls.errors import ConfigError, WriteError
from imgcls.runtime.atomic_files import PartialFile, hidden, naming, reopen, write_text

RECORD_SECONDS = 10.0  # of work that a killed process loses at most

_REMEDY = "add --overwrite to start again"


class Output(NamedTuple):
    """A file to write.

    Args:
        target: Its path.
        join: Makes it of its complete parts, which are removed.
    """

    target: Path
    join: Callable[[Sequence[Path], Path], None]


class Progress(NamedTuple):
    """How far the rows of the outputs are written.

    Args:
        rows: Number of rows.
        errors: Rows with an error.
        first_errors: Path and reason of the first of them.
        predicted: Predicted class -> number of images.
    """

    rows: int = 0
    errors: int = 0
    first_errors: tuple[tuple[str, str], ...] = ()
    predicted: Counter[str] = Counter()  # noqa: RUF012 - never changed


class Unfinished:
    """The hidden files of outputs that are not complete yet.

    ``.NAME.unfinished`` beside each output has its rows so far. ``.NAME.unfinished.json`` of the first output records
    what they are of, and how many bytes are complete rows that are safe on the disk: a resumed process cuts the files
    to these sizes. The record is written every ten seconds, and when an error or a signal ends the work.

    Args:
        outputs: The files.
        about: What a resumed command must agree in: option -> plain value.
        total: Number of rows of the complete outputs.
    """

    def __init__(self, outputs: Sequence[Output], about: Mapping[str, Any], total: int) -> None:
        self.outputs = outputs
        self.about = dict(about)
        self.total = total
        self.progress = Progress()
        self._record = _record_path(outputs[0].target)
        self._paths = [_path(output.target) for output in outputs]
        self._sizes = [0] * len(outputs)
        self._files: list[PartialFile] = []
        self._recorded_at = 0.0

    def restore(self) -> None:
        """Read the record of the process that was stopped; there may be none.

        Raises:
            ConfigError: If it is of another command, or its files are not there.
        """
        record = read_record(self.outputs[0].target)
        if record is None:
            return
        known = record["about"]
        for option in [*self.about, *(key for key in known if key not in self.about)]:
            before, now = known.get(option), self.about.get(option)
            if before != now:
                raise ConfigError(
                    f"--resume: {self.outputs[0].target} was begun with {_pair(option, before)}, this command has "
                    f"{_pair(option, now)}; give the same, or {_REMEDY}"
                )
        sizes = [int(size) for size in record["sizes"]]
        for path, size in zip(self._paths, sizes, strict=True):
            if not path.is_file() or path.stat().st_size < size:
                raise ConfigError(f"--resume: {path} is missing or shorter than {size:,} bytes; {_REMEDY}")
        first_errors = tuple(map(tuple, record["first_errors"]))
        self.progress = Progress(record["rows"], record["errors"], first_errors, Counter(record["predicted"]))
        self._sizes = sizes

    def open(self) -> list[PartialFile]:
        """Open the files, cut to the rows of the record."""
        if not self.progress.rows:
            forget(self.outputs[0].target)
        targets = [output.target for output in self.outputs]
        self._files = [reopen(*each) for each in zip(targets, self._paths, self._sizes, strict=True)]
        self._recorded_at = time.monotonic()
        return self._files

    def advance(self, progress: Progress) -> None:
        """Note that the files have complete rows only."""
        self.progress = progress
        self._sizes = [file.tell() for file in self._files]
        if time.monotonic() - self._recorded_at >= RECORD_SECONDS:
            self._sync()
            self._write_record()

    def _sync(self) -> None:
        for file in self._files:
            with naming(file.target):
                file.check()
                os.fsync(file.fileno())

    def _write_record(self) -> None:
        record = {"about": self.about, "total": self.total, "sizes": self._sizes, **self.progress._asdict()}
        write_text(self._record, json.dumps(record))
        self._recorded_at = time.monotonic()

    def finish(self) -> None:
        """Replace the outputs by the complete files; if the first one does not fit on the disk, all can be resumed."""
        self._sync()
        for file in self._files:
            file.close()
        for output, path in zip(self.outputs, self._paths, strict=True):
            output.join([path], output.target)
        self._record.unlink(missing_ok=True)

    def abandon(self) -> int:
        """Close the files, cut to complete rows, and record them; return the number of rows that can be resumed."""
        for file, size in zip(self._files, self._sizes, strict=True):
            with suppress(WriteError, OSError):  # a full disk
                file.close()
            with suppress(OSError):
                os.truncate(file.path, size)
        if self.progress.rows:
            with suppress(WriteError):  # an earlier record, if there is one, is still valid
                self._write_record()
        if record := read_record(self.outputs[0].target):
            return int(record["rows"])
        for path in self._paths:
            path.unlink(missing_ok=True)
        return 0


def read_record(target: Path) -> dict[str, Any] | None:
    """Return the record of an unfinished output; None if there is none.

    Raises:
        ConfigError: If it is damaged.
    """
    path = _record_path(target)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if {"about", "total", "sizes", *Progress._fields} <= record.keys():
            return dict(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        pass
    raise ConfigError(f"{path}: is damaged; {_REMEDY}")


def refuse_unfinished(target: Path) -> None:
    """Refuse to discard the rows of a process that was stopped.

    Raises:
        ConfigError: Says how to resume it.
    """
    if record := read_record(target):
        raise ConfigError(
            f"{target}: {record['rows']:,} of {record['total']:,} images are predicted, by a command that was stopped; "
            f"add --resume to predict the others, or --overwrite to start again"
        )


def forget(target: Path) -> None:
    """Remove the record of an unfinished output."""
    _record_path(target).unlink(missing_ok=True)


def _path(target: Path) -> Path:
    return hidden(target, ".unfinished")


def _record_path(target: Path) -> Path:
    return hidden(target, ".unfinished.json")


def _pair(option: str, value: object) -> str:
    return f"{option} {'null' if value is None else value}"
