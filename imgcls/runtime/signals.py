"""Ctrl-C that is not lost, and breaks nothing off that must come to its end."""

import signal
import threading
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SECONDS = 0.1  # until a Ctrl-C that came in a finalizer is raised again


@contextmanager
def lasting_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where it is heard.

    Python prints and drops what is raised in a ``__del__``, and that of torch's loader waits there for its workers at
    the end of each epoch: a Ctrl-C in that moment would be lost, and the run go on.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is somebody's, or ignored
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def postponed_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt at the end of the block; a second Ctrl-C breaks it off.

    Within ``lasting_interrupts``, for a transaction: broken off in its midst, it may keep the database locked.
    """
    _postponed.depth += 1
    try:
        yield
    finally:
        _postponed.depth -= 1
        if _postponed.heard and not _postponed.depth:
            _postponed.heard = False
            raise KeyboardInterrupt


@dataclass
class _Postponed:
    depth: int = 0  # of the blocks
    heard: bool = False


_postponed = _Postponed()


def _interrupt(_: int, frame: FrameType | None) -> None:
    if _postponed.depth and not _postponed.heard:
        _postponed.heard = True
        return
    _postponed.heard = False
    if not _in_finalizer(frame):
        raise KeyboardInterrupt
    threading.Timer(_SECONDS, interrupt_main).start()


def _in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
