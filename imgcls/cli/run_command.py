"""Run a command, and turn an error into a message and an exit code."""

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from imgcls.cli.checkpoint_commands import run_explain, run_export
from imgcls.cli.parser import ImgclsCLI
from imgcls.commands.trainer import is_first_process
from imgcls.errors import INTERRUPTED
from imgcls.images.pillow_settings import silence_decoders
from imgcls.runtime.error_messages import explain
from imgcls.runtime.signals import Stopped
from imgcls.runtime.warning_filters import quieten

_RUN: dict[str, Callable[[list[str]], object]] = {"export": run_export, "explain": run_explain}


def run(arguments: list[str], debug: bool = False) -> None:
    """Run a command.

    Args:
        arguments: The command line after the program's name.
        debug: Print the traceback of an error.

    Raises:
        SystemExit: With the exit code, if the command failed or was stopped.
    """
    quieten()
    silence_decoders()
    try:
        with logging_to_stderr(), no_traceback_of_tensorboard():
            _RUN.get(arguments[0], ImgclsCLI)(arguments)
    except Stopped:
        raise
    except SystemExit as stop:
        # Lightning 2.6 ends with 1 after a KeyboardInterrupt that a user's code raises
        code = INTERRUPTED if isinstance(stop.__context__, KeyboardInterrupt) else stop.code
        raise SystemExit(code) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, code = explain(error)
        print(f"imgcls: {text}", file=sys.stderr)
        raise SystemExit(code) from None


@contextmanager
def no_traceback_of_tensorboard() -> Iterator[None]:
    """Hide the traceback of TensorBoard's writer thread: TensorBoard raises its error again in the main thread."""
    usual = threading.excepthook

    def show(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("tensorboard."):
            usual(error)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = usual


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current ``sys.stderr``, which a progress bar replaces so that it can print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Print the log of imgcls and Lightning on stderr; stdout is for results."""
    ours, lightning = logging.getLogger("imgcls"), logging.getLogger("lightning.pytorch")
    handler, level, former = _StderrHandler(), ours.level, lightning.handlers
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.setLevel(logging.INFO if is_first_process() else logging.WARNING)
    ours.addHandler(handler)
    lightning.handlers = [handler]
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        lightning.handlers = former
