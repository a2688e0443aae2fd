"""Ctrl-C and SIGTERM: heard at every moment, and raised where nothing is broken off that must come to its end."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import Popen
from types import FrameType
from typing import NoReturn, TypeVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_PRESS = 0.2  # seconds in which a signal that comes again is the same press
_PASSED_ON = 5.0  # seconds; to what a terminal has sent to all processes, the one that started them adds its own signal
_AGAIN = 0.1  # seconds until what Python dropped is raised again
_SIGNALLED = 128  # what a shell adds to the number of the signal that ended a process
_END = object()

_Item = TypeVar("_Item")


class Stopped(SystemExit):
    """What the first signal raises; its code is that of a process that the signal has ended."""

    code: int


@dataclass(eq=False)
class Hold:
    """A stretch of work that no signal breaks off.

    Args:
        waits: Whether a signal is heard while it waits for the next item of ``waited``.
    """

    waits: bool = False

    def begin(self) -> None:
        """Keep signals for later."""
        _state.holds = [*_state.holds, self]

    def end(self) -> None:
        """Let signals be raised again; what came in the meantime is not."""
        _state.holds = [hold for hold in _state.holds if hold is not self]


@dataclass
class _State:
    holds: list[Hold] = field(default_factory=list)
    number: int = 0  # of the first signal; 0: none was heard
    time: float = 0.0  # of the first signal
    raised: bool = False
    dropped: bool = False  # it was raised where Python drops what is raised
    at_once: bool = False  # nothing is there that the first signal could lose
    owner: int = 0  # the process that listens; its forks have its handlers
    processes: list["Popen[bytes]"] = field(default_factory=list)


_state = _State()


@contextmanager
def listening(to_the_end: bool = False) -> Iterator[None]:
    """Raise ``Stopped`` at the first Ctrl-C or SIGTERM, and end the process at the second.

    A signal that is ignored, or somebody else's, is left so. Outside of this block all others here do nothing.

    Args:
        to_the_end: Whether nothing is left to do behind it: a signal ends the process at once, then.
    """
    global _state
    usual = {signal.SIG_DFL, signal.default_int_handler}
    former = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) in usual}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state, hook = _State(owner=os.getpid()), sys.unraisablehook
    for number in former:
        signal.signal(number, _hear)
    sys.unraisablehook = _raise_again
    try:
        yield
    finally:
        sys.unraisablehook, _state.at_once = hook, True
        for number, handler in former.items() if not to_the_end else ():
            signal.signal(number, handler)


def end_now(stop: Stopped) -> NoReturn:
    """End the process, whose work is done, without the second that Python takes to clear its memory."""
    atexit._run_exitfuncs()  # noqa: SLF001 - as Python does first
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever read it has ended, too
            stream.flush()
    os._exit(stop.code)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at the first signal: nothing is there yet that would be lost, such as within imports."""
    _state.at_once = True
    try:
        yield
    finally:
        _state.at_once = False


@contextmanager
def postponed(waits: bool = False) -> Iterator[None]:
    """Let a signal wait for the end of the block, and be raised there.

    Args:
        waits: Let it be raised, too, while the block waits for the next item of ``waited``.
    """
    hold = Hold(waits)
    hold.begin()
    try:
        yield
    finally:
        hold.end()
    if not _state.holds:
        stop_if_heard()


def waited(items: Iterable[_Item]) -> Iterator[_Item]:
    """Pass items on; hear a signal while the next one is waited for, also within holds that allow it."""
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
    """Return the number of the signal that was heard and is not raised yet; 0 if there is none."""
    return 0 if _state.raised else _state.number


def stop_if_heard() -> None:
    """Raise a signal that was heard, and not raised yet."""
    if number := heard():
        stop(number)


def stop(number: int) -> NoReturn:
    """Raise a signal, heard in this process or in another of the same run."""
    _state.number, _state.time, _state.raised = number, _state.time or time.monotonic(), True
    raise Stopped(_SIGNALLED + number)


def end_with_this(processes: Sequence["Popen[bytes]"]) -> None:
    """Let processes that this one has started end with it, where a second signal ends it at once."""
    _state.processes.extend(processes)


def _hear(number: int, _: FrameType | None) -> None:
    if os.getpid() != _state.owner:  # a fork, which its parent ends
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
    elif time.monotonic() - _state.time > (_ONE_PRESS if number == _state.number else _PASSED_ON):
        _end_at_once(number)


def _raise_if_free() -> None:
    if not _state.holds:
        stop_if_heard()


def _end_at_once(number: int) -> None:
    try:
        for process in _state.processes:
            for again in (signal.SIGTERM, signal.SIGINT):  # it may have heard either
                process.send_signal(again)
        for child in multiprocessing.active_children():
            child.kill()
    finally:  # whatever state the signal has found them in
        os._exit(_SIGNALLED + number)


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Raise a stop once more that came in a ``__del__``, a weak reference's callback or a hook of a fork."""
    if not isinstance(dropped.exc_value, Stopped):
        sys.__unraisablehook__(dropped)
        return
    _state.raised, _state.dropped = False, True
    main = threading.main_thread().ident  # which may sleep: a real signal wakes it
    timer = threading.Timer(_AGAIN, signal.pthread_kill, (main, _state.number))
    timer.daemon = True
    timer.start()
