"""Apply a function to many files in threads or processes, with progress and prompt interruption."""

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain
from multiprocessing import get_context
from threading import Event
from typing import TypeVar

from imgcls.data.loading.workers import FORK
from imgcls.errors import RunError
from imgcls.runtime.cores import available_cores
from imgcls.runtime.progress import tracked
from imgcls.runtime.signals import waited

_MANY = 20_000  # items; from here on, starting processes takes less time than it saves
_CHUNK = 64  # items per task, since a future costs more than a small file
_THREADS = 16  # reading mostly waits for the disk

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], what: str) -> Iterator[_Result]:
    """Yield the result of each item, in order; threads stop after their current item if that is interrupted.

    A progress bar says ``what`` is done.
    """
    return _mapped(ThreadPoolExecutor(_THREADS), function, items, what)


def map_in_processes(function: Callable[[_Item], _Result], items: list[_Item], what: str) -> Iterator[_Result]:
    """Yield as ``map_in_threads`` the results of CPU-bound work, computed by processes if there are many items.

    Raises:
        RunError: If a process is killed.
    """
    if len(items) < _MANY:
        return map_in_threads(function, items, what)
    # fork, as for loader workers: a user's script then needs no guard of __main__
    pool = ProcessPoolExecutor(available_cores(), get_context(FORK), initializer=_ignore_interrupt)
    return _mapped(pool, function, items, what)


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _mapped(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], what: str
) -> Iterator[_Result]:
    given = list(items)
    chunks = [given[start : start + _CHUNK] for start in range(0, len(given), _CHUNK)]
    stopped = Event() if isinstance(pool, ThreadPoolExecutor) else None  # an event cannot be sent to a process
    try:
        results = pool.map(partial(_apply, function, stopped), chunks)
        yield from tracked(chain.from_iterable(waited(results)), len(given), what)
    except BrokenProcessPool as error:
        raise RunError(f"{what}: a process was killed (probably out of memory); run the command again") from error
    finally:
        if stopped is not None:
            stopped.set()
        pool.shutdown(cancel_futures=True)


def _apply(function: Callable[[_Item], _Result], stopped: Event | None, items: list[_Item]) -> list[_Result]:
    return [function(item) for item in items if stopped is None or not stopped.is_set()]
