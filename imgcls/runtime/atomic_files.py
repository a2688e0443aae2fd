"""Whole files: written beside their place, synced and renamed, so that a crash leaves the old or the new one; names."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to; the file takes the target's place when all went well.

    It lies in the target's folder: a rename across file systems would copy, and could be torn.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        _sync(partial)
        partial.replace(target)
        with suppress(OSError):  # some file systems sync no folder; the file is whole and in its place
            _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, at once and without a copy; the first name may be replaced later."""
    if target.exists() and target.samefile(source):
        return
    with replacing(target) as partial:
        try:
            os.link(source, partial)
        except OSError:  # a file system without links
            shutil.copyfile(source, partial)


def _sync(path: Path) -> None:
    """Make the content of a file, or a rename in a folder, survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_utf8(name: str) -> bool:
    """Whether a name is text; names of files may be any bytes, which Python keeps as surrogates."""
    return name == name.encode(errors="ignore").decode()
