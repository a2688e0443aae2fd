"""The processes of a run on several devices: what each of them has, given to all."""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from subprocess import Popen, TimeoutExpired
from typing import TypeVar

from lightning.pytorch.strategies.launchers import subprocess_script
from torch import distributed

from imgcls.runtime.signals import end_with_this

_Value = TypeVar("_Value")

_SECONDS = 5.0  # that a process takes to end after it has closed its connections
_LOOK = 0.5  # seconds between two looks at the others
_SIGNALLED = 128  # what a shell adds to the number of the signal that ended a process
_ENDING = threading.Event()  # this process has an error of its own, and ends by it


def gather(value: _Value) -> list[_Value]:
    """Return the value of every process, in the order of their ranks; all of them must call this at the same place."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[_Value | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return [item for item in found if item is not None]


def watch(processes: Sequence["Popen[bytes]"]) -> None:
    """End this process as the first of others that fails, where it waits for that one for ever, as under NCCL it does.

    Takes the place of Lightning's observer, which kills this process too: exit code 137, as if memory had run out.

    Args:
        processes: Those that this one has started.
    """
    end_with_this(processes)
    threading.Thread(target=_end_as_the_first, args=(processes,), daemon=True).start()


# Lightning offers no other place
subprocess_script._launch_process_observer = watch  # type: ignore[attr-defined, assignment]  # noqa: SLF001


def _end_as_the_first(processes: Sequence["Popen[bytes]"]) -> None:
    failed = None
    while failed is None:
        time.sleep(_LOOK)
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes):
            return
        failed = next((code for code in codes if code), None)
    if _ENDING.wait(_SECONDS):  # a broken connection, as of gloo, says it at once
        return
    for process in processes:
        process.kill()
    os._exit(failed if failed > 0 else _SIGNALLED - failed)


def end_others(processes: Sequence["Popen[bytes]"]) -> None:
    """End the processes that this one has started and that do not end with it: under NCCL they would wait for it."""
    _ENDING.set()
    for process in processes:
        try:
            process.wait(_SECONDS)
        except TimeoutExpired:
            process.kill()


def code_of_others(error: BaseException, processes: Sequence["Popen[bytes]"]) -> int | None:
    """Return the exit code of another process that failed, has said why, and broke the connection; None if none did.

    Args:
        error: What this process ends with.
        processes: Those that it has started, if it is the first one.
    """
    _ENDING.set()
    if not processes and "by peer" in str(error):  # gloo: connection closed, or reset
        return 1
    for process in processes:
        with suppress(TimeoutExpired):
            if code := process.wait(_SECONDS):
                return code
    return None
