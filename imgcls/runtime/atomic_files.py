"""Atomic file writes: write to a temporary file, sync and rename, so that a crash leaves the old or the new file."""

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
"""Error numbers for a full disk, quota or file size limit."""
_NAME = 200  # bytes of the target's name used in a hidden name; file systems allow 255


class PartialFile(io.BufferedWriter):
    """A temporary file that will be renamed to its target.

    On a full disk it keeps counting bytes, so that the error can state how many are needed.
    """

    def __init__(self, target: Path, path: Path, handle: int) -> None:
        self.target = target
        self.path = path
        self._sink = _Sink(handle, "wb")
        self._sink.needed = os.lseek(handle, 0, os.SEEK_CUR)
        super().__init__(self._sink)

    def check(self) -> None:
        """Flush to the operating system.

        Raises:
            FullDiskError: If the disk is full.
        """
        self.flush()
        if self._sink.error is not None:
            raise full_disk(self.target, self._sink.error, self._sink.needed, os.fstat(self.fileno()).st_size)


class _Sink(io.FileIO):
    """A file that remembers a full disk instead of raising."""

    error: OSError | None = None
    needed = 0

    def write(self, data: Any, /) -> int:
        """Write bytes; after the disk was full, only count them."""
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
    """Open a temporary file that replaces the target if the block succeeds.

    It is in the target's folder, since a rename across file systems copies and is not atomic. Its name is random and
    it is created exclusively, so that no existing link is followed.

    Raises:
        WriteError: If the disk is full, or the folder does not exist or is not writable.
    """
    file = _create(target)
    try:
        with file:
            yield file
            with naming(target):
                file.check()
                os.fsync(file.fileno())
                file.path.replace(target)
        with suppress(OSError):  # some file systems cannot sync a folder; the file itself is complete
            _sync(target.parent)
    finally:
        file.path.unlink(missing_ok=True)


@contextmanager
def replacing_text(target: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file as ``replacing`` does; file names that are not UTF-8 keep their bytes."""
    with replacing(target) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        yield text
        text.detach()


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing_text(target) as file:
        file.write(text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an ``OSError`` of the block.

    Raises:
        WriteError: Names the path and, on a full disk, the free bytes.
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
    """Return the error for a file that does not fit on the disk.

    Sizes are in bytes: ``needed`` for the file, None if unknown; ``taken`` become free when the file is removed.
    """
    free = "an unknown number of bytes"
    with suppress(OSError):
        free = size_in_words(shutil.disk_usage(path.parent).free + taken)
    needs = "" if needed is None else f"it needs {size_in_words(needed)}, "
    return FullDiskError(f"{path}: the disk is full ({error.strerror}): {needs}{free} are free; make room there")


def link(source: Path, target: Path) -> None:
    """Hard-link a file to a second name atomically, or copy it where the file system has no links."""
    if target.exists() and target.samefile(source):
        return
    with source.open("rb") as file:
        _lock(file.fileno())  # also protects the second name from sweep()
        partial = _beside(target)
        try:
            os.link(source, partial)
        except OSError:
            with replacing(target) as copy:
                shutil.copyfileobj(file, copy)
            return
        with naming(target):
            partial.replace(target)


def sweep(folder: Path, names: str = f"**/.*{PARTIAL}") -> None:
    """Remove the temporary files of killed processes; those of live processes are locked.

    The glob pattern ``names`` includes subfolders by default.
    """
    found: list[Path] = []
    with suppress(OSError):  # a folder may be removed in the meantime
        found.extend(folder.glob(names))
    for path in found:
        with suppress(OSError), open(path, "rb", opener=regular) as file:
            if lock_descriptor(file.fileno(), blocking=False):
                path.unlink()


def reopen(target: Path, path: Path, size: int) -> PartialFile:
    """Open a temporary file that outlives its process, cut to ``size`` bytes; a new file if that is 0.

    Raises:
        WriteError: If it cannot be opened.
    """
    with naming(path):
        if not size:
            path.unlink(missing_ok=True)
        flags = os.O_NOFOLLOW | (0 if size else os.O_CREAT | os.O_EXCL)
        handle = os.open(path, os.O_WRONLY | flags, 0o666)
        os.ftruncate(handle, size)
        os.lseek(handle, size, os.SEEK_SET)
        return PartialFile(target, path, handle)


def regular(path: str, flags: int) -> int:
    """Open a regular file, refusing symbolic links and pipes: an ``opener`` for ``open``."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # opening a pipe would block
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise OSError(error.errno, "it is a link or a pipe", path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a link or a pipe", path)
    return handle


def hidden(target: Path, suffix: str) -> Path:
    """Return the path of a hidden file that belongs to the target, in the same folder."""
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
        if os.fstat(handle).st_nlink:  # 0 if sweep() removed it before it was locked
            return PartialFile(target, path, handle)
        os.close(handle)


def _lock(handle: int) -> None:
    """Mark a file as in use; on file systems without locks nothing is swept."""
    with suppress(OSError):
        lock_descriptor(handle)


def _sync(path: Path) -> None:
    """Sync a folder, so that a rename in it survives a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_utf8(name: str) -> bool:
    """Whether a file name is valid UTF-8; Python keeps other bytes as surrogates."""
    return name == name.encode(errors="ignore").decode()
