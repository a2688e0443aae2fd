"""The processes of a run on several devices: gather values of all, and end together."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from subprocess import Popen, TimeoutExpired
from typing import TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import distributed

from imgcls.errors import ImgclsError
from imgcls.runtime.signals import end_with_this

_Value = TypeVar("_Value")

_SECONDS = 5.0  # that a process takes to end after it has closed its connections
_INTERVAL = 0.5  # seconds between two checks of the other processes
_SIGNALLED = 128  # what a shell adds to the number of the signal that ended a process
_ENDING = threading.Event()  # this process has an error of its own, and ends by it


def gather(value: _Value) -> list[_Value]:
    """Return the value of every process, in the order of their ranks; all of them must call this."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[_Value | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return [item for item in found if item is not None]


class ProcessWatch(Callback):
    """Ends the processes of a run on this machine when one of them fails, with that one's exit code.

    Lightning 2.6 (lightning.fabric.strategies.launchers.subprocess_script) kills this process, too, so that the exit
    code is 137, as if memory had run out. It watches the list ``launcher.procs`` and stops once that is empty. May go
    when Lightning ends with the exit code of the process that failed.
    """

    def __init__(self) -> None:
        self.processes: list[Popen[bytes]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watch the processes that this one has started, in place of Lightning."""
        started: list[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        if started:
            self.processes += started
            started.clear()
            watch(self.processes)


def watch(processes: Sequence["Popen[bytes]"]) -> None:
    """End this process as the first of those that it has started fails, even while it waits for it, as under NCCL."""
    end_with_this(processes)
    threading.Thread(target=_end_as_the_first, args=(processes,), daemon=True).start()


def _end_as_the_first(processes: Sequence["Popen[bytes]"]) -> None:
    failed = None
    while failed is None:
        time.sleep(_INTERVAL)
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes):
            return
        failed = next((code for code in codes if code), None)
    if _ENDING.wait(_SECONDS):  # gloo raises an error in this process, too
        return
    for process in processes:
        process.kill()
    os._exit(failed if failed > 0 else _SIGNALLED - failed)


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """End the other processes of a run with this one; if one of them failed first, end with its exit code.

    Raises:
        SystemExit: With the exit code of the process that failed, and broke the connection to this one.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        for process in _started(trainer):  # a terminal has sent them the same signal already
            process.terminate()
        end_others(_started(trainer))
        raise
    except Exception as error:
        broken = isinstance(error, RuntimeError) and not isinstance(error, ImgclsError)
        code = code_of_others(error, _started(trainer)) if broken else None
        end_others(_started(trainer))
        if code is None:
            raise
        raise SystemExit(code) from error


def _started(trainer: pl.Trainer) -> list["Popen[bytes]"]:
    """Return the processes that this one has started for further devices."""
    watches = [item for item in trainer.callbacks if isinstance(item, ProcessWatch)]  # type: ignore[attr-defined]
    return [*getattr(trainer.strategy.launcher, "procs", []), *(each for watch in watches for each in watch.processes)]


def end_others(processes: Sequence["Popen[bytes]"]) -> None:
    """End processes that do not end with this one: under NCCL they would wait for it."""
    _ENDING.set()
    for process in processes:
        try:
            process.wait(_SECONDS)
        except TimeoutExpired:
            process.kill()


def code_of_others(error: BaseException, processes: Sequence["Popen[bytes]"]) -> int | None:
    """Return the exit code of another process that failed, reported why, and broke the connection; None if none did.

    The first process has started the others, which have no ``processes``.
    """
    _ENDING.set()
    if not processes and "by peer" in str(error):  # gloo: connection closed, or reset
        return 1
    for process in processes:
        with suppress(TimeoutExpired):
            if code := process.wait(_SECONDS):
                return code
    return None
