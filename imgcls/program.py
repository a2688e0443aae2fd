"""Runs a command, and turns what goes wrong into a line and an exit code."""

import logging
import sys
import traceback
from argparse import ArgumentError

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from imgcls.cli import ImgclsCLI
from imgcls.errors import ImageError, ImgclsError
from imgcls.quiet import quieten


def run(arguments: list[str], debug: bool = False) -> None:
    """Run a command.

    Args:
        arguments: The command line after the program's name.
        debug: Show the traceback of an error.

    Raises:
        SystemExit: With the exit code, if the command did not end well.
    """
    _talk()
    quieten()
    try:
        ImgclsCLI(arguments)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, code = explain(error)
        print(f"imgcls: {text}", file=sys.stderr)
        raise SystemExit(code) from None


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to print for an error, and the exit code."""
    for cause in _causes(error):
        if isinstance(cause, ImgclsError):
            return _of_worker(str(cause)), cause.exit_code
        if isinstance(cause, ImageError):
            return f"{_of_worker(str(cause))}; remove or replace the file", 2
    if isinstance(error, ArgumentError):
        return _of_parser(str(error)), 2
    if isinstance(error, MisconfigurationException):
        return _first_line(error), 2
    return f"the run failed: {type(error).__name__}: {_of_worker(str(error))} (--debug shows where)", 1


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _of_worker(text: str) -> str:
    """Take the error out of the report that a loader worker sends."""
    if "Original Traceback" in text:
        last = text.strip().splitlines()[-1]
        return last.partition(": ")[2] or last
    return text


def _of_parser(text: str) -> str:
    return text


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _talk() -> None:
    logger = logging.getLogger("imgcls")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
