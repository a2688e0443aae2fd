"""The errors that imgcls raises on purpose; a message says what was found, what is expected and what to type.

In Python, catch :class:`ConfigError` (an invalid configuration, argument, file or dataset; a ``ValueError``),
:class:`RunError` (a run that started and failed; a ``RuntimeError``), or :class:`ImgclsError` for both, and
:class:`ImageError` (an image that ``imgcls.images.load_image`` cannot read; a ``ValueError``). An argument of a wrong
type is a ``TypeError``. ``imgcls.load(…).predict`` raises none of them for an image that it cannot read: its row has
the reason.
"""

import difflib
import os
from collections.abc import Iterable
from contextlib import suppress
from reprlib import Repr

INTERRUPTED = 130  # exit code after Ctrl-C

_FEW = 20  # names that a message may list
_quoted = Repr()
_quoted.maxstring = 200  # longer names are abbreviated in the middle


class ImgclsError(Exception):
    """An expected error, printed as its message without a traceback."""

    exit_code = 1


class ConfigError(ImgclsError, ValueError):
    """An invalid configuration, argument, file or dataset (exit code 2)."""

    exit_code = 2


class NotLoggedError(ConfigError):
    """A monitored value that a run does not log; its text names the option, the value, and those that are logged."""


class RunError(ImgclsError, RuntimeError):
    """A run that started and failed (exit code 1)."""


class WriteError(RunError, OSError):
    """A file that could not be written; the message names it (exit code 1)."""


class FullDiskError(WriteError):
    """A file that did not fit on the disk; the message names it and the free bytes."""


class ImageError(ValueError):
    """An image that cannot be used; the message is ``<path>: <reason>``."""


def did_you_mean(name: str, known: Iterable[str], before: str = "") -> str:
    """Return a hint naming the closest known name; empty if none is close. ``before`` is its parent key."""
    close = difflib.get_close_matches(name, list(known), 1)
    if not close:
        return ""
    return f"; did you mean {join_keys(before, close[0]) if before else close[0]!r}?"


def similar_path(path: str | os.PathLike[str]) -> str:
    """Return a hint naming the file or folder beside a missing one whose name is closest; empty if none is close."""
    folder, name = os.path.split(os.path.expanduser(path).rstrip(os.sep))
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder or ".")
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {os.path.join(folder, close[0])!r}?" if close else ""


def known_names(name: str, known: Iterable[str], before: str = "") -> str:
    """Return a hint naming the closest known name, as ``did_you_mean`` does, else all known names if they are few."""
    names = list(known)
    listed = f"; there are {', '.join(names)}" if 0 < len(names) <= _FEW else ""
    return did_you_mean(name, names, before) or listed


def listed(names: list[str], most: int = 10) -> str:
    """Return the first ``most`` names, quoted, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_quoted.repr, names[:most])) + more


def in_lines(texts: list[str], most: int = 10) -> str:
    """Return the first ``most`` texts, each in an indented line, and the number of the others."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return "".join(f"\n  {text}" for text in texts[:most] + more)


def size_in_words(nbytes: float) -> str:
    """Format a number of bytes in MB or GB."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"


def join_keys(before: str, key: str) -> str:
    """Join two dotted keys, of which the first may be empty."""
    return f"{before}.{key}" if before else key


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and its chain of causes and contexts, the last first, as a traceback shows them."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def first_line(error: BaseException) -> str:
    """Return the first non-blank line of an error's message, else the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
