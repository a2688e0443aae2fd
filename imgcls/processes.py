"""The processes of a run on several devices: what each of them has, given to all."""

from collections.abc import Sequence
from contextlib import suppress
from subprocess import Popen, TimeoutExpired
from typing import TypeVar

from torch import distributed

_Value = TypeVar("_Value")

_SECONDS = 5.0  # that a process takes to end after it has closed its connections


def gather(value: _Value) -> list[_Value]:
    """Return the value of every process, in the order of their ranks; all of them must call this at the same place."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[_Value | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return [item for item in found if item is not None]


def end_others(processes: Sequence["Popen[bytes]"]) -> None:
    """End the processes that this one has started and that do not end with it: under NCCL they would wait for it."""
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
    if not processes and "by peer" in str(error):  # gloo: connection closed, or reset
        return 1
    for process in processes:
        with suppress(TimeoutExpired):
            if code := process.wait(_SECONDS):
                return code
    return None
