"""Whole files: written beside their place, synced and renamed, so that a crash leaves the old or the new one."""

import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from filelock import lock_descriptor

from imgcls.errors import FullDiskError, WriteError, size_in_words

PARTIAL = ".partial"

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where there is no room for more."""
_NAME = 200  # bytes of a target's name that go into a hidden one; file systems take 255


class PartialFile(io.BufferedWriter):
    """A file that is being written under another name.

    Where the disk is full, it counts on: the message says how many bytes are needed.

    Args:
        target: The name that it gets when it is whole.
        path: The name that it has.
        handle: The open file.
    """

    def __init__(self, target: Path, path: Path, handle: int) -> None:
        self.target = target
        self.path = path
        self._sink = _Sink(handle, "wb")
        super().__init__(self._sink)

    def check(self) -> None:
        """Hand all over to the system.

        Raises:
            FullDiskError: If the disk is full.
        """
        self.flush()
        if self._sink.error is not None:
            raise full_disk(self.target, self._sink.error, self._sink.needed, os.fstat(self.fileno()).st_size)


class _Sink(io.FileIO):
    """A file that takes everything, and remembers that the disk was full."""

    error: OSError | None = None
    needed = 0

    def write(self, data: Any, /) -> int:
        """Write bytes; where there is no room, count them alone."""
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                size = super().write(data) or 0
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self.error = error
        self.needed += size
        return size


@contextmanager
def replacing(target: Path) -> Iterator[PartialFile]:
    """Give a file to write to, which takes the target's place when all went well.

    It lies in the target's folder: a rename across file systems would copy, and could be torn. Its name is drawn, and
    the file made anew, so that no link that lies there is followed.

    Raises:
        WriteError: If the disk is full, or the folder is gone or cannot be written.
    """
    file = _create(target)
    try:
        with file:
            yield file
            with naming(target):
                file.check()
                os.fsync(file.fileno())
                file.path.replace(target)
        with suppress(OSError):  # some file systems sync no folder; the file is whole and in its place
            _sync(target.parent)
    finally:
        file.path.unlink(missing_ok=True)


@contextmanager
def replacing_text(target: Path) -> Iterator[TextIO]:
    """Give a text file in UTF-8 as ``replacing`` does; names of files that are no text keep their bytes."""
    with replacing(target) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        yield text
        text.detach()


def write_text(target: Path, text: str) -> None:
    """Write a whole text file."""
    with replacing_text(target) as file:
        file.write(text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of the system while it is written.

    Raises:
        WriteError: Names the path, and where the disk is full the bytes that are free.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise full_disk(path, error) from error
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def full_disk(path: Path, error: OSError, needed: int | None = None, taken: int = 0) -> FullDiskError:
    """Return the error of a file that a disk has no room for.

    Args:
        path: The file.
        error: What the system said.
        needed: Bytes that it takes; None where nobody knows.
        taken: Bytes that are written of it, and free when it is removed.
    """
    free = "an unknown number of bytes"
    with suppress(OSError):
        free = size_in_words(shutil.disk_usage(path.parent).free + taken)
    needs = "" if needed is None else f"it needs {size_in_words(needed)}, "
    return FullDiskError(f"{path}: the disk is full ({error.strerror}): {needs}{free} are free; make room there")


def link(source: Path, target: Path) -> None:
    """Give a file a second name, at once and without a copy; the first name may be replaced later."""
    if target.exists() and target.samefile(source):
        return
    with source.open("rb") as file:
        _lock(file.fileno())  # for the second name, too
        partial = _beside(target)
        try:
            os.link(source, partial)
        except OSError:  # a file system without links
            with replacing(target) as copy:
                shutil.copyfileobj(file, copy)
            return
        with naming(target):
            partial.replace(target)


def sweep(folder: Path, names: str = f"**/.*{PARTIAL}") -> None:
    """Remove what killed processes left half-written in a folder; who is alive has locked its files.

    Args:
        folder: The folder.
        names: Pattern of their names; by default also those in folders below.
    """
    found: list[Path] = []
    with suppress(OSError):  # a folder may be removed meanwhile
        found.extend(folder.glob(names))
    for path in found:
        with suppress(OSError), open(path, "rb", opener=regular) as file:
            if lock_descriptor(file.fileno(), blocking=False):
                path.unlink()


def regular(path: str, flags: int) -> int:
    """Open a regular file, but no link or pipe that somebody left in its place: an ``opener`` for ``open``."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # a pipe would wait for its other end
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise OSError(error.errno, "a link or a pipe lies in its place", path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "a link or a pipe lies in its place", path)
    return handle


def hidden(target: Path, suffix: str) -> Path:
    """Return the name of a file that belongs to another, beside it."""
    name = os.fsencode(target.name)[:_NAME].decode(errors="ignore")
    return target.with_name(f".{name}{suffix}")


def _beside(target: Path) -> Path:
    return hidden(target, f".{secrets.token_hex(6)}{PARTIAL}")


def _create(target: Path) -> PartialFile:
    while True:
        path = _beside(target)
        with naming(target):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        _lock(handle)
        if os.fstat(handle).st_nlink:  # else swept in between
            return PartialFile(target, path, handle)
        os.close(handle)


def _lock(handle: int) -> None:
    """Show that somebody is at work here; some file systems have no locks, and nothing is swept there."""
    with suppress(OSError):
        lock_descriptor(handle)


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
