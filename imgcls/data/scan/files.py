"""Scan samples before the first step: unreadable headers, and content hashes."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar
from zlib import crc32

from filelock import FileLock, Timeout

from imgcls.data.scan.file_cache import FileCache, ScannedFile, Stamp
from imgcls.data.scan.parallel import map_in_processes, map_in_threads
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.datasets.fingerprint import fingerprint_of_id
from imgcls.errors import ImageError
from imgcls.images import check_header
from imgcls.runtime.cache_folder import cache_folder
from imgcls.runtime.progress import tracked
from imgcls.runtime.signals import waited

log = logging.getLogger(__name__)

HashKind = Literal["full", "sampled", "none"]
"""How content hashes are computed: from all bytes, from the size and both ends, or from the path."""

_BATCH = 5000  # files per write to the cache
_LOCKS = 256  # lock files at most

_Header = tuple[int, int] | str  # width and height in pixels, or the reason why the file cannot be read
_Item = TypeVar("_Item")


def unreadable(data: ImageDataset) -> dict[int, str]:
    """Return row -> reason for samples with an unreadable header, if they are files; only new ones are read."""
    if not data.holds_files or "path" not in data.samples:  # a missing column is an error when labels are checked
        return {}
    paths = [str(path) for path in data.samples["path"]]
    stamps = {path: _stamp(path) for path in paths}
    file_cache = _file_cache(cache_folder())

    def find_new() -> list[str]:
        known = file_cache.get(paths)
        return [path for path in paths if not _is_valid(known.get(path), stamps[path], data.max_pixels)]

    reasons: dict[str, str] = {}
    with _locked(paths, find_new) as new:
        headers = map_in_processes(partial(_header, max_pixels=data.max_pixels), new, "reading headers")
        for batch in _batched(zip(new, headers, strict=True)):
            reasons |= {path: header for path, header in batch if isinstance(header, str)}
            valid = [(path, size) for path, size in batch if not isinstance(size, str)]
            file_cache.put({path: ScannedFile(stamp, *size) for path, size in valid if (stamp := stamps[path])})
    return {row: reasons[path] for row, path in enumerate(paths) if path in reasons} if reasons else {}


def fingerprints(data: ImageDataset, rows: Iterable[int], kind: HashKind = "full") -> list[str]:
    """Return the content hash of rows; a file that was hashed before is not read again.

    The kind ``none`` hashes the path relative to the dataset's root.
    """
    indices = [int(row) for row in rows]
    if kind == "none":
        return [fingerprint_of_id(_relative_path(data, row)) for row in indices]
    if not (data.holds_files or type(data).fingerprint is ImageDataset.fingerprint):  # may not hash the file at path
        return list(_hashes(data, indices, kind))
    at = {data.sample_paths[index]: index for index in indices}
    stamps = {path: _stamp(path) for path in at}
    file_cache = _file_cache(cache_folder(), kind)
    known: dict[str, ScannedFile] = {}
    contents: dict[str, str] = {}

    def find_new() -> list[str]:
        known.update((path, file) for path, file in file_cache.get(at).items() if file.stamp == stamps[path])
        contents.update((path, file.content) for path, file in known.items() if file.content is not None)
        return [path for path in at if path not in contents]

    with _locked(at, find_new) as new:
        for batch in _batched(zip(new, _hashes(data, [at[path] for path in new], kind), strict=True)):
            contents |= batch
            read = {path: content for path, content in batch if content != fingerprint_of_id(path)}
            file_cache.put(
                {
                    path: known.get(path, ScannedFile(stamp))._replace(content=content)
                    for path, content in read.items()
                    if (stamp := stamps[path])
                }
            )
    return [contents[data.sample_paths[index]] for index in indices]


def _relative_path(data: ImageDataset, row: int) -> str:
    if isinstance(data, JoinedDataset):
        return _relative_path(*data.find(row))
    root = getattr(data, "root", None)
    return os.path.relpath(data.sample_paths[row], root) if root else data.sample_paths[row]


@contextmanager
def _locked(paths: Iterable[str], find_new: Callable[[], list[str]]) -> Iterator[list[str]]:
    """Yield the files that are not scanned yet, after waiting for another process that scans the same files.

    So several ranks, or workers of a search, read each file once.
    """
    new = find_new()
    if not new:
        yield new
        return
    lock = FileLock(cache_folder() / f"scan-{crc32(os.fsencode(min(paths))) % _LOCKS:03d}.lock")
    with suppress(OSError):  # reported by the file cache
        cache_folder().mkdir(parents=True, exist_ok=True)
        if acquire(lock, "scans the same images"):
            new = find_new()
    try:
        yield new
    finally:
        lock.release()


def acquire(lock: FileLock, work: str) -> bool:
    """Acquire a lock, and return whether another process held it; a message says what that one does."""
    with suppress(Timeout):
        lock.acquire(timeout=0)
        return False
    log.info("waiting for another process that %s", work)
    list(waited(lock.acquire() for _ in range(1)))  # a signal interrupts it, also within a fit
    return True


def _batched(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield items in batches, so that what was scanned before an interruption is cached."""
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


@cache
def _file_cache(folder: Path, kind: HashKind = "full") -> FileCache:
    """Return the file cache of a folder; one object, so that a problem is logged once."""
    return FileCache(folder, "" if kind == "full" else f"-{kind}")


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:  # the reader gives the reason
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_valid(file: ScannedFile | None, stamp: Stamp | None, max_pixels: int) -> bool:
    if file is None or file.stamp != stamp or file.width is None or file.height is None:
        return False
    return file.width * file.height <= max_pixels


def _header(path: str, max_pixels: int) -> _Header:
    try:
        return check_header(path, max_pixels)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")


def _hashes(data: ImageDataset, indices: list[int], kind: HashKind) -> Iterator[str]:
    hash_of = data.fingerprint if kind == "full" else data.sampled_fingerprint
    if _is_thread_safe(data):
        return map_in_threads(hash_of, indices, "reading contents")
    return tracked(waited(map(hash_of, indices)), len(indices), "reading contents")


def _is_thread_safe(data: ImageDataset) -> bool:
    """Whether several threads may read: files, but not a user's class, which may read through one file handle."""
    if type(data) is JoinedDataset:
        return all(map(_is_thread_safe, data.parts))
    hashes, reads = (method.__module__.startswith("imgcls.") for method in (type(data).fingerprint, type(data).read))
    return hashes and (reads or all(map(os.path.isfile, data.sample_paths)))
