"""Loader workers: how they start and stop, and which file each is reading when one is killed or hangs."""

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

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from imgcls.errors import RunError
from imgcls.images.pillow_settings import silence_decoders
from imgcls.runtime.signals import postponed

_Item = TypeVar("_Item", covariant=True)

FORK = "fork" if sys.platform == "linux" else None
"""Start method of workers; None is the system's. Python 3.14's default on Linux would not share ``_BOARD``."""

_LONGEST = 1024  # bytes of a path that are stored
_MOST = 256  # workers with a row
_ROW = np.dtype([("process", "<i4"), ("path", f"S{_LONGEST}")])

# one row per worker, in shared memory
_BOARD = torch.zeros(_MOST * _ROW.itemsize, dtype=torch.uint8).share_memory_().numpy().view(_ROW)  # type: ignore[no-untyped-call]


class WatchedLoader(DataLoader[_Item]):
    """A loader that notices the end of a worker at once.

    torch sets its SIGCHLD handler once per process, and Lightning 2.6 restores the former handlers at the end of each
    fit and evaluation; without this class, a later loader would notice a killed worker only after ``timeout``.
    """

    _handler: Any = None

    def __iter__(self) -> Any:
        with postponed(), _signals_held():  # Python drops exceptions in at-fork hooks
            iterator = super().__iter__()
        if self.num_workers and threading.current_thread() is threading.main_thread():  # only it sets handlers
            self._watch()
        return iterator

    @staticmethod
    def _watch() -> None:
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler):
            WatchedLoader._handler = handler
        elif WatchedLoader._handler is not None:
            signal.signal(signal.SIGCHLD, WatchedLoader._handler)


def worker_arguments(count: int, timeout: float) -> dict[str, Any]:
    """Return the arguments of a DataLoader that concern its ``count`` workers; 0 loads in this process.

    A batch may take ``timeout`` seconds in a worker; 0 is unlimited.
    """
    return {
        "num_workers": count,
        "multiprocessing_context": FORK if count else None,
        "timeout": timeout if count else 0,
        "worker_init_fn": _start,
        "generator": torch.Generator(),  # creating an iterator must not use the global generator
    }


def _start(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    silence_decoders()
    follow_parent()


def follow_parent() -> None:
    """Let this worker end only at the SIGTERM of its parent.

    A terminal sends Ctrl-C to all processes of a job, and systemd and cluster schedulers SIGTERM: the parent saves
    first and then ends its workers. On systems other than Linux, which do not report the sender, any SIGTERM ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _show_error
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_sigterm, args=(os.getppid(),), daemon=True).start()


def _show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error, but not that the parent stopped while it was receiving a batch.

    The thread that hands shared memory over (``multiprocessing.resource_sharer``, Python 3.11 to 3.14) prints a
    traceback through ``sys.excepthook`` when the parent is interrupted and closes the connection.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def note(path: str) -> None:
    """Record the file that this worker is about to read; "" if it waits for work."""
    if get_worker_info() is not None:
        _BOARD[os.getpid() % _MOST] = os.getpid(), os.fsencode(path)[-_LONGEST:]


@contextmanager
def naming_files() -> Iterator[None]:
    """Name the file if a worker is killed while reading, or hangs.

    Raises:
        RunError: Instead of the loader's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if named := worker_error(error):
            raise named from error
        raise


def worker_error(error: BaseException) -> RunError | None:
    """Return the error to show if a worker was killed or timed out; None for any other error."""
    text = str(error)
    if "Bus error" in text or ("shared memory" in text and "No space left" in text):
        return RunError(
            "the shared memory for batches (/dev/shm) is full: lower data.num_workers or data.batch_size, or provide "
            "more of it, in a container: docker run --shm-size 4g"
        )
    if match := re.search(r"DataLoader timed out after ([\d.]+) seconds", text):
        alive = {child.pid for child in multiprocessing.active_children()}
        reading = sorted({path for pid, path in _workers().items() if pid in alive} - {""})
        _kill()
        return RunError(
            f"no batch for {float(match[1]):g} s while reading {', '.join(reading) or 'images'}; check that the file "
            "can be read, or raise data.timeout"
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
    """Block signals while processes start, until ``follow_parent`` handles them."""
    if sys.platform != "linux":
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _wait_for_sigterm(parent: int) -> None:
    """End at the SIGTERM of the parent, which may have ended since."""
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)


def _kill() -> None:
    """End the workers; a stopped worker, or one that waits for a disk, would keep this process from ending."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report their end as an error
    numbers = _workers()
    for child in multiprocessing.active_children():
        if child.pid in numbers:
            child.kill()


def _workers() -> dict[int, str]:
    """Return the file that each worker is reading, by process id; "" if it waits for work."""
    return {process: os.fsdecode(path) for process, path in _BOARD.tolist() if process}
