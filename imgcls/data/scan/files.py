"""A look at all samples before the first step: which cannot be read, and what each one's content is."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from typing import TypeVar

from imgcls.cache_folder import cache_folder
from imgcls.cores import available_cores
from imgcls.data.loading.workers import FORK
from imgcls.data.scan.file_cache import Facts, Ledger, Stamp
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, fingerprint_of_id
from imgcls.errors import ImageError, RunError
from imgcls.images import check_header
from imgcls.runtime.progress import tracked

_MANY = 20_000  # files, from which on processes pay their start
_CHUNK = 64  # files that a thread or process takes at a time
_THREADS = 16  # reading waits for the disk more than for the processor

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
    known = ledger.recall(paths)
    new = [path for path in paths if not _is_well(known.get(path), stamps[path], data.max_pixels)]
    headers = dict(zip(new, _headers(new, data.max_pixels), strict=True))
    sizes = {path: header for path, header in headers.items() if not isinstance(header, str)}
    ledger.remember({path: Facts(stamp, *size) for path, size in sizes.items() if (stamp := stamps[path])})
    if len(sizes) == len(headers):
        return {}
    return {row: reason for row, path in enumerate(paths) if isinstance(reason := headers.get(path), str)}


def fingerprints(data: ImageDataset, rows: Iterable[int]) -> list[str]:
    """Return the content hash of samples; a file that was hashed before is not read again."""
    places = [int(row) for row in rows]
    if not data.holds_files:
        return list(_hashed(data, places))
    paths = [str(path) for path in data.samples["path"].to_numpy()[places]]
    stamps = {path: _stamp(path) for path in paths}
    ledger = _ledger(cache_folder())
    known = {path: facts for path, facts in ledger.recall(paths).items() if facts.stamp == stamps[path]}
    contents = {path: facts.content for path, facts in known.items() if facts.content is not None}
    new = {path: place for path, place in zip(paths, places, strict=True) if path not in contents}
    found = dict(zip(new, _hashed(data, new.values()), strict=True))
    ledger.remember(
        {
            path: known.get(path, Facts(stamp))._replace(content=content)
            for path, content in found.items()
            if (stamp := stamps[path]) and content != fingerprint_of_id(path)
        }
    )
    contents |= found
    return [contents[path] for path in paths]


@cache
def _ledger(folder: Path) -> Ledger:
    """The ledger of a folder; one object, so that what is wrong with it is said once."""
    return Ledger(folder)


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


def _hashed(data: ImageDataset, places: Iterable[int]) -> Iterator[str]:
    if _takes_threads(data):
        return _mapped(ThreadPoolExecutor(_THREADS), data.fingerprint, places, "reading contents")
    given = list(places)
    return tracked(map(data.fingerprint, given), len(given), "reading contents")


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
        yield from tracked(chain.from_iterable(results), len(given), what)
    except BrokenProcessPool as error:
        raise RunError(f"{what}: a process was killed (probably out of memory); run the command again") from error
    finally:
        if ended is not None:
            ended.set()
        pool.shutdown(cancel_futures=True)


def _each(function: Callable[[_Item], _Result], ended: Event | None, items: list[_Item]) -> list[_Result]:
    """A future for every item would cost more than a small file does."""
    return [function(item) for item in items if ended is None or not ended.is_set()]
