"""The errors that imgcls raises on purpose; each text names what was found, what would be right and what to type."""

import difflib
from collections.abc import Iterable
from reprlib import Repr

INTERRUPTED = 130  # exit code after Ctrl-C

_FEW = 20  # names that a message may list
_quoted = Repr()
_quoted.maxstring = 200  # of a longer name, a message shows both ends


class ImgclsError(Exception):
    """An expected error: printed as its text alone, without a traceback."""

    exit_code = 1


class ConfigError(ImgclsError, ValueError):
    """A configuration, argument, file or data set that cannot be used (exit code 2)."""

    exit_code = 2


class NotLoggedError(ConfigError):
    """A monitored value that a run does not log; its text names the option, the value, and those that are logged."""


class RunError(ImgclsError, RuntimeError):
    """A run that started and could not be finished (exit code 1)."""


class WriteError(RunError, OSError):
    """A file that could not be written; its text names the file (exit code 1)."""


class FullDiskError(WriteError):
    """A file that the disk had no room for; its text names the file, and the bytes."""


class ImageError(ValueError):
    """An image that cannot be used; its text is ``<path>: <reason>``."""


def did_you_mean(name: str, known: Iterable[str], before: str = "") -> str:
    """Return a hint at the known name that is nearest, empty if none is near.

    Args:
        name: What was found.
        known: What there is.
        before: Put in front of the hint's name, with a dot.
    """
    close = difflib.get_close_matches(name, list(known), 1)
    if not close:
        return ""
    return f"; did you mean {join_keys(before, close[0]) if before else close[0]!r}?"


def known_names(name: str, known: Iterable[str], before: str = "") -> str:
    """Return a hint at the known name that is nearest, else at all known names where they are few.

    Args:
        name: What was found.
        known: What there is.
        before: Put in front of the nearest name, with a dot.
    """
    names = list(known)
    listed = f"; there are {', '.join(names)}" if 0 < len(names) <= _FEW else ""
    return did_you_mean(name, names, before) or listed


def listed(names: list[str], most: int = 10) -> str:
    """Return the first names, quoted, and how many more there are; of a very long one its ends."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_quoted.repr, names[:most])) + more


def size_in_words(nbytes: float) -> str:
    """Return a number of bytes as a text in MB or GB."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"


def join_keys(before: str, key: str) -> str:
    """Return the dotted key of a key within a section; the outermost section has no name."""
    return f"{before}.{key}" if before else key


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and what led to it, the last first; what ``raise … from`` leaves out is left out."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not blank, or the error's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
