"""A look at all samples before the first step: which cannot be read, and what each one's content is."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from imgcls.cache_folder import cache_folder
from imgcls.cores import available_cores
from imgcls.data.scan.file_cache import Facts, Ledger, Stamp
from imgcls.datasets.dataset import ImageDataset, JoinedDataset, fingerprint_of_id
from imgcls.errors import ImageError
from imgcls.images import check_header
from imgcls.runtime.progress import tracked

_MANY = 20_000  # files, from which on processes pay their start
_CHUNK = 500
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
        return _threaded(look, paths, "reading headers")
    return _mapped(ProcessPoolExecutor(available_cores()), look, paths, "reading headers")


def _header(path: str, max_pixels: int) -> _Header:
    try:
        return check_header(path, max_pixels)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")


def _hashed(data: ImageDataset, places: Iterable[int]) -> Iterator[str]:
    if _takes_threads(data):
        return _threaded(data.fingerprint, places, "reading contents")
    given = list(places)
    return tracked(map(data.fingerprint, given), len(given), "reading contents")


def _takes_threads(data: ImageDataset) -> bool:
    """Whether several threads may read: files, but not what a class of one's own may read all through one handle."""
    if type(data) is JoinedDataset:
        return all(map(_takes_threads, data.parts))
    hashes, reads = (method.__module__.startswith("imgcls.") for method in (type(data).fingerprint, type(data).read))
    return hashes and (reads or all(map(os.path.isfile, data.sample_paths)))


def _threaded(function: Callable[[_Item], _Result], items: Iterable[_Item], what: str) -> Iterator[_Result]:
    return _mapped(ThreadPoolExecutor(_THREADS), function, items, what)


def _mapped(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], what: str
) -> Iterator[_Result]:
    given = list(items)
    with pool:
        yield from tracked(pool.map(function, given, chunksize=_CHUNK), len(given), what)
