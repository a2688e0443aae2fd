"""A look at all samples before the first step: which cannot be read, and what each one's content is."""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from typing import Literal, TypeVar
from zlib import crc32

from filelock import FileLock, Timeout

from imgcls.data.loading.workers import FORK
from imgcls.data.scan.file_cache import Facts, Ledger, Stamp
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, fingerprint_of_id
from imgcls.errors import ImageError, RunError
from imgcls.images import check_header
from imgcls.runtime.cache_folder import cache_folder
from imgcls.runtime.cores import available_cores
from imgcls.runtime.progress import tracked
from imgcls.runtime.signals import waited

log = logging.getLogger(__name__)

HashKind = Literal["full", "sampled", "none"]

_MANY = 20_000  # files, from which on processes pay their start
_CHUNK = 64  # files that a thread or process takes at a time
_THREADS = 16  # reading waits for the disk more than for the processor

_REMEMBERED = 5000  # files after which the ledger is written to
_LOCKS = 256  # files at most that are locked to wait for each other

_Header = tuple[int, int] | str  # width and height in pixels, or why there are none
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def unreadable(data: ImageDataset) -> dict[int, str]:
    """Look at the headers of all image files that are new or changed; nothing is decoded.

    Args:
        data: The dataset; where its samples are not image files, nothing shows before they are read.

    Returns:
        Row -> reason, for each sample that cannot be read.
    """
    if not data.holds_files or "path" not in data.samples:  # which is refused where the labels are looked at
        return {}
    paths = [str(path) for path in data.samples["path"]]
    stamps = {path: _stamp(path) for path in paths}
    ledger = _ledger(cache_folder())

    def find_new() -> list[str]:
        known = ledger.recall(paths)
        return [path for path in paths if not _is_well(known.get(path), stamps[path], data.max_pixels)]

    reasons: dict[str, str] = {}
    with _in_turn(paths, find_new) as new:
        for some in _batched(zip(new, _headers(new, data.max_pixels), strict=True)):
            reasons |= {path: header for path, header in some if isinstance(header, str)}
            sizes = [(path, stamp, header) for path, header in some if (stamp := stamps[path])]
            ledger.remember({path: Facts(stamp, *size) for path, stamp, size in sizes if not isinstance(size, str)})
    return {row: reasons[path] for row, path in enumerate(paths) if path in reasons} if reasons else {}


def fingerprints(data: ImageDataset, rows: Iterable[int], kind: HashKind = "full") -> list[str]:
    """Return the content hash of samples; a file that was hashed before is not read again.

    Args:
        data: The dataset.
        rows: The rows of the samples.
        kind: Of what: all bytes, or the size and both ends; ``none`` is a hash of the path below the dataset's root.
    """
    places = [int(row) for row in rows]
    if kind == "none":
        return [fingerprint_of_id(_below_root(data, row)) for row in places]
    if not (data.holds_files or type(data).fingerprint is ImageDataset.fingerprint):  # which reads a file at the path
        return list(_hashed(data, places, kind))
    at = {data.sample_paths[place]: place for place in places}
    stamps = {path: _stamp(path) for path in at}
    ledger = _ledger(cache_folder(), kind)
    known: dict[str, Facts] = {}

    def find_new() -> list[str]:
        known.update((path, facts) for path, facts in ledger.recall(at).items() if facts.stamp == stamps[path])
        return [path for path in at if path not in known or known[path].content is None]

    found: dict[str, str] = {}
    with _in_turn(at, find_new) as new:
        for some in _batched(zip(new, _hashed(data, [at[path] for path in new], kind), strict=True)):
            found |= some
            read = [(path, stamp, content) for path, content in some if (stamp := stamps[path])]
            ledger.remember(
                {
                    path: known.get(path, Facts(stamp))._replace(content=content)
                    for path, stamp, content in read
                    if content != fingerprint_of_id(path)
                }
            )
    contents = [found.get(path) or known[path].content for path in map(data.sample_paths.__getitem__, places)]
    return [content for content in contents if content is not None]


def _below_root(data: ImageDataset, row: int) -> str:
    if isinstance(data, JoinedDataset):
        return _below_root(*data.find(row))
    root = getattr(data, "root", None)
    return os.path.relpath(data.sample_paths[row], root) if root else data.sample_paths[row]


@contextmanager
def _in_turn(paths: Iterable[str], find_new: Callable[[], list[str]]) -> Iterator[list[str]]:
    """Give the files that nobody has looked at yet; another process that looks at the same ones is waited for.

    So several ranks, or workers of a search, read each file once.
    """
    new = find_new()
    if not new:
        yield new
        return
    lock = FileLock(cache_folder() / f"scan-{crc32(os.fsencode(min(paths))) % _LOCKS:03d}.lock")
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process looks at the same images; waiting for it")
        list(waited(lock.acquire() for _ in range(1)))  # a signal ends it, also within a fit
        new = find_new()
    except OSError:  # which the ledger says
        yield new
        return
    try:
        yield new
    finally:
        lock.release()


def _batched(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Return items by the thousand: what has been looked at is remembered, also where the rest is broken off."""
    rest = iter(items)
    while some := list(islice(rest, _REMEMBERED)):
        yield some


@cache
def _ledger(folder: Path, kind: HashKind = "full") -> Ledger:
    """The ledger of a folder; one object, so that what is wrong with it is said once."""
    return Ledger(folder, "" if kind == "full" else f"-{kind}")


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:  # the reader says why
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_well(facts: Facts | None, stamp: Stamp | None, max_pixels: int) -> bool:
    if facts is None or facts.stamp != stamp or facts.width is None or facts.height is None:
        return False
    return facts.width * facts.height <= max_pixels


def _headers(paths: list[str], max_pixels: int) -> Iterator[_Header]:
    look = partial(_header, max_pixels=max_pixels)
    if len(paths) < _MANY:
        return _mapped(ThreadPoolExecutor(_THREADS), look, paths, "reading headers")
    # fork, as loaders do: a script of the user's needs no guard of __main__
    pool = ProcessPoolExecutor(available_cores(), get_context(FORK), initializer=_leave_signals)
    return _mapped(pool, look, paths, "reading headers")


def _leave_signals() -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _header(path: str, max_pixels: int) -> _Header:
    try:
        return check_header(path, max_pixels)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")


def _hashed(data: ImageDataset, places: list[int], kind: HashKind) -> Iterator[str]:
    hash_of = data.fingerprint if kind == "full" else data.sampled_fingerprint
    if _takes_threads(data):
        return _mapped(ThreadPoolExecutor(_THREADS), hash_of, places, "reading contents")
    return tracked(waited(map(hash_of, places)), len(places), "reading contents")


def _takes_threads(data: ImageDataset) -> bool:
    """Whether several threads may read: files, but not what a class of one's own may read all through one handle."""
    if type(data) is JoinedDataset:
        return all(map(_takes_threads, data.parts))
    hashes, reads = (method.__module__.startswith("imgcls.") for method in (type(data).fingerprint, type(data).read))
    return hashes and (reads or all(map(os.path.isfile, data.sample_paths)))


def _mapped(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], what: str
) -> Iterator[_Result]:
    """Return the function of each item, in order; where that is broken off, threads leave what they have not begun."""
    given = list(items)
    chunks = [given[start : start + _CHUNK] for start in range(0, len(given), _CHUNK)]
    ended = Event() if isinstance(pool, ThreadPoolExecutor) else None  # which cannot be sent to a process
    try:
        results = pool.map(partial(_each, function, ended), chunks)
        yield from tracked(chain.from_iterable(waited(results)), len(given), what)
    except BrokenProcessPool as error:
        raise RunError(f"{what}: a process was killed (probably out of memory); run the command again") from error
    finally:
        if ended is not None:
            ended.set()
        pool.shutdown(cancel_futures=True)


def _each(function: Callable[[_Item], _Result], ended: Event | None, items: list[_Item]) -> list[_Result]:
    """A future for every item would cost more than a small file does."""
    return [function(item) for item in items if ended is None or not ended.is_set()]
