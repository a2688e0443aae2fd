"""The processes that read images: what each is reading, for the message when one is killed or waits for ever."""

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from imgcls.errors import RunError
from imgcls.runtime.signals import postponed

_Item = TypeVar("_Item", covariant=True)

FORK = "fork" if sys.platform == "linux" else None
"""How workers start; None is the system's way. From Python 3.14 on, Linux too would start them without ``_BOARD``."""

_LONGEST = 1024  # bytes of a path that are kept
_MOST = 256  # workers that are kept track of

# one row a worker, in memory that all processes share: process number (4 bytes), length (2 bytes), path
_BOARD = torch.zeros(_MOST, 6 + _LONGEST, dtype=torch.uint8).share_memory_().numpy()  # type: ignore[no-untyped-call]


class WatchedLoader(DataLoader[_Item]):
    """A loader that hears of a worker's end at once, however many loaders and fits came before it.

    torch sets its handler of that signal once in a process, and Lightning puts back the handler of before at the end
    of each fit and evaluation (2.6): from then on the end of a worker would show when ``timeout`` is over.
    """

    _handler: Any = None

    def __iter__(self) -> Any:
        """Start the workers, and iterate."""
        with postponed(), _signals_held():  # Python drops what is raised in the hooks of a fork
            iterator = super().__iter__()
        if self.num_workers and threading.current_thread() is threading.main_thread():  # others hear of no signal
            self._watch()
        return iterator

    @staticmethod
    def _watch() -> None:
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler):
            WatchedLoader._handler = handler
        elif WatchedLoader._handler is not None:
            signal.signal(signal.SIGCHLD, WatchedLoader._handler)


def outlive_signals() -> None:
    """Let this worker end at the SIGTERM of its parent alone.

    A terminal sends Ctrl-C to each process of a job, systemd and schedulers of clusters SIGTERM: the parent saves, and
    ends its workers then. Elsewhere than on Linux, where no sender is told, they end at any SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _show_error
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for, args=(os.getppid(),), daemon=True).start()


def _show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error, but not that the parent stopped while it was receiving a batch.

    The thread that hands shared memory over (``multiprocessing.resource_sharer``, Python 3.11 to 3.14) prints a
    traceback through ``sys.excepthook`` when the parent is interrupted and closes the connection.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def note(path: str) -> None:
    """Write down what this worker is about to read; an empty text, that it waits for work."""
    info = get_worker_info()
    if info is not None:
        text = os.fsencode(path)[-_LONGEST:]
        entry = os.getpid().to_bytes(4, "little") + len(text).to_bytes(2, "little") + text
        _BOARD[os.getpid() % _MOST, : len(entry)] = np.frombuffer(entry, np.uint8)


@contextmanager
def naming_files() -> Iterator[None]:
    """Name the file where a worker is killed while reading, or waits for ever.

    Raises:
        RunError: In place of the loader's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if named := worker_error(error):
            raise named from error
        raise


def worker_error(error: BaseException) -> RunError | None:
    """Return the error to show where a worker was killed, or gave nothing for too long; None for any other error."""
    text = str(error)
    if "Bus error" in text or ("shared memory" in text and "No space left" in text):
        return RunError(
            "the shared memory (/dev/shm) that batches are passed in is full: lower data.num_workers or "
            "data.batch_size, or give more of it, in a container: docker run --shm-size 4g"
        )
    if match := re.search(r"DataLoader timed out after ([\d.]+) seconds", text):
        alive = {child.pid for child in multiprocessing.active_children()}
        reading = sorted({path for pid, path in _workers().items() if pid in alive} - {""})
        _kill()
        return RunError(
            f"no batch came for {float(match[1]):g} s while reading {', '.join(reading) or 'images'}; see whether the "
            "file can be read, or raise data.timeout"
        )
    if match := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", text):
        reading = [path for pid, path in _workers().items() if path and str(pid) in re.findall(r"\d+", match[1])]
        return RunError(
            "a data worker was killed (probably out of memory): lower data.num_workers, data.batch_size or max_pixels"
            + (f"; the last file that it read: {', '.join(reading)}" if reading else "")
        )
    return None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let no signal end a process that starts in the block before ``outlive_signals``."""
    if sys.platform != "linux":
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _wait_for(parent: int) -> None:
    """End at the SIGTERM of the parent, which may itself have ended since it sent it."""
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)


def _kill() -> None:
    """End the workers; one that is stopped, or waits for a disk, would keep this process from its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would take their end for a fault
    numbers = _workers()
    for child in multiprocessing.active_children():
        if child.pid in numbers:
            child.kill()


def _workers() -> dict[int, str]:
    """What each worker is reading, by process number; empty where it waits for work."""
    found = {}
    for row in _BOARD:
        if number := int.from_bytes(row[:4].tobytes(), "little"):
            length = int.from_bytes(row[4:6].tobytes(), "little")
            found[number] = os.fsdecode(row[6 : 6 + length].tobytes())
    return found
