"""Ctrl-C and SIGTERM: always received, and raised only where no work is interrupted that must be finished."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from subprocess import Popen

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_PRESS = 0.2  # seconds within which a repeated signal is the same key press
_FORWARDED = 5.0  # seconds within which a parent may forward a signal that the terminal has sent to all processes
_AGAIN = 0.1  # seconds until an exception that Python dropped is raised again
_SIGNALLED = 128  # added by shells to the number of the signal that ended a process
_END = object()

_Item = TypeVar("_Item")


class Stopped(SystemExit):
    """Raised by the first signal; its code is that of a process ended by the signal."""

    code: int


@dataclass(eq=False)
class Hold:
    """A section of code that no signal interrupts.

    Args:
        waits: Whether a signal may be raised while ``waited`` waits for its next item.
    """

    waits: bool = False

    def begin(self) -> None:
        """Start postponing signals."""
        _state.holds = [*_state.holds, self]

    def end(self) -> None:
        """Stop postponing signals, without raising one received in the meantime."""
        _state.holds = [hold for hold in _state.holds if hold is not self]


@dataclass
class _State:
    holds: list[Hold] = field(default_factory=list)
    number: int = 0  # of the first signal; 0: none was received
    time: float = 0.0  # of the first signal
    raised: bool = False
    dropped: bool = False  # it was raised where Python drops exceptions
    at_once: bool = False  # the first signal ends the process, since nothing could be lost
    ends_process: bool = True  # the second signal ends the process; else it raises KeyboardInterrupt
    owner: int = 0  # the process that installed the handlers; forks inherit them
    processes: list["Popen[bytes]"] = field(default_factory=list)


_state = _State()


@contextmanager
def listening(to_the_end: bool = False, ends_process: bool = True) -> Iterator[None]:
    """Raise ``Stopped`` at the first Ctrl-C or SIGTERM, and end the process at the second.

    Signals that are ignored or have another handler are left alone. Outside of this block the other functions of this
    module have no effect.

    Args:
        to_the_end: Whether the process ends after the block, so that a signal then ends it at once.
        ends_process: Whether the second signal ends the process, which else raises KeyboardInterrupt: the process is
            not ours, for example a notebook's.
    """
    global _state
    usual = {signal.SIG_DFL, signal.default_int_handler}
    former = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) in usual}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state, hook = _State(owner=os.getpid(), ends_process=ends_process), sys.unraisablehook
    for number in former:
        signal.signal(number, _hear)
    sys.unraisablehook = _raise_again
    try:
        yield
    finally:
        sys.unraisablehook, _state.at_once = hook, ends_process
        for number, handler in former.items() if not to_the_end else ():
            signal.signal(number, handler)


def end_now(stop: Stopped) -> NoReturn:
    """End the process without the second that Python takes to free its memory."""
    atexit._run_exitfuncs()  # noqa: SLF001 - os._exit skips them, and there is no public call
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader may have ended
            stream.flush()
    os._exit(stop.code)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at the first signal, while nothing can be lost, for example during imports."""
    _state.at_once = True
    try:
        yield
    finally:
        _state.at_once = False


@contextmanager
def postponed(waits: bool = False) -> Iterator[None]:
    """Postpone signals to the end of the block; with ``waits`` as in :class:`Hold`."""
    hold = Hold(waits)
    hold.begin()
    try:
        yield
    finally:
        hold.end()
    if not _state.holds:
        stop_if_heard()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise signals within the block although a ``Hold`` postpones them, since its work is saved."""
    holds, _state.holds = _state.holds, []
    try:
        stop_if_heard()
        yield
    finally:
        _state.holds = holds


def waited(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items; raise a signal while waiting for the next one, unless a ``Hold`` forbids it."""
    iterator = iter(items)
    while (item := _next(iterator)) is not _END:
        yield item  # type: ignore[misc]


def _next(iterator: Iterator[_Item]) -> object:
    holds = _state.holds
    if not holds or not all(hold.waits for hold in holds):
        return next(iterator, _END)
    _state.holds = []
    try:
        stop_if_heard()
        return next(iterator, _END)
    finally:
        _state.holds = holds


def heard() -> int:
    """Return the number of the signal that was received and not raised yet; 0 if there is none."""
    return 0 if _state.raised else _state.number


def stop_if_heard() -> None:
    """Raise a signal that was received and not raised yet."""
    if number := heard():
        stop(number)


def stop(number: int) -> NoReturn:
    """Raise a signal received in this process or another one of the run."""
    _state.number, _state.time, _state.raised = number, _state.time or time.monotonic(), True
    raise Stopped(_SIGNALLED + number)


def end_with_this(processes: Sequence["Popen[bytes]"]) -> None:
    """Also end these child processes when a second signal ends this one."""
    _state.processes.extend(processes)


def _hear(number: int, _: FrameType | None) -> None:
    if os.getpid() != _state.owner:  # a fork, which is ended by its parent
        if number == signal.SIGTERM:
            os._exit(_SIGNALLED + number)
    elif _state.at_once:
        _end_at_once(number)
    elif not _state.number:
        _state.number, _state.time = number, time.monotonic()
        _raise_if_free()
    elif _state.dropped:
        _state.dropped = False
        _raise_if_free()
    elif time.monotonic() - _state.time > (_ONE_PRESS if number == _state.number else _FORWARDED):
        if not _state.ends_process:
            _state.raised = True
            raise KeyboardInterrupt
        _end_at_once(number)


def _raise_if_free() -> None:
    if not _state.holds:
        stop_if_heard()


def _end_at_once(number: int) -> None:
    try:
        for process in _state.processes:
            for again in (signal.SIGTERM, signal.SIGINT):  # it may have received either
                process.send_signal(again)
        if multiprocessing := sys.modules.get("multiprocessing"):  # else there are none; its import takes 10 ms
            for child in multiprocessing.active_children():
                child.kill()
    finally:  # in whatever state they are
        os._exit(_SIGNALLED + number)


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Raise ``Stopped`` again if Python dropped it in ``__del__``, a weakref callback or a fork hook."""
    if not isinstance(dropped.exc_value, Stopped):
        sys.__unraisablehook__(dropped)
        return
    _state.raised, _state.dropped = False, True
    main = threading.main_thread().ident  # it may sleep, and a real signal wakes it
    timer = threading.Timer(_AGAIN, signal.pthread_kill, (main, _state.number))
    timer.daemon = True
    timer.start()
