"""Runs a command, and turns what goes wrong into a line and an exit code."""

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from imgcls.cli.parser import ImgclsCLI
from imgcls.cli.warning_filters import quieten
from imgcls.commands.trainer import is_first_process
from imgcls.errors import INTERRUPTED
from imgcls.images.pillow_settings import silence_decoders
from imgcls.runtime.error_messages import explain
from imgcls.runtime.signals import Stopped


def run(arguments: list[str], debug: bool = False) -> None:
    """Run a command.

    Args:
        arguments: The command line after the program's name.
        debug: Show the traceback of an error.

    Raises:
        SystemExit: With the exit code, if the command did not end well.
    """
    quieten()
    silence_decoders()
    try:
        with _talking(), _errors_once():
            ImgclsCLI(arguments)
    except Stopped:
        raise
    except SystemExit as stop:
        raise SystemExit(_exit_code(stop)) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, code = explain(error)
        print(f"imgcls: {text}", file=sys.stderr)
        raise SystemExit(code) from None


@contextmanager
def _errors_once() -> Iterator[None]:
    """Leave out the traceback of TensorBoard's thread, whose error the main thread raises again."""
    usual = threading.excepthook

    def show(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("tensorboard."):
            usual(error)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = usual


def _exit_code(stop: SystemExit) -> str | int | None:
    """Return the code of a stop; Lightning ends with 1 after a KeyboardInterrupt that somebody's code raises."""
    if isinstance(stop.__context__, KeyboardInterrupt):
        return INTERRUPTED
    return stop.code


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the ``sys.stderr`` of the moment: a progress bar replaces it, and moves down for what is written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def _talking() -> Iterator[None]:
    """Print what imgcls itself says, on stderr: standard output is for results."""
    logger, others = logging.getLogger("imgcls"), logging.getLogger("lightning.pytorch")
    handler, former = _StderrHandler(), others.handlers
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.setLevel(logging.INFO if is_first_process() else logging.WARNING)
    logger.addHandler(handler)
    others.handlers = [handler]
    try:
        yield
    finally:
        logger.removeHandler(handler)
        others.handlers = former
