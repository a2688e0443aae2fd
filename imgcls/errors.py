"""The errors that imgcls raises on purpose; each text names what was found, what would be right and what to type."""

import difflib
from collections.abc import Iterable


class ImgclsError(Exception):
    """An expected error: printed as its text alone, without a traceback."""

    exit_code = 1


class ConfigError(ImgclsError, ValueError):
    """A configuration, argument, file or data set that cannot be used (exit code 2)."""

    exit_code = 2


class RunError(ImgclsError, RuntimeError):
    """A run that started and could not be finished (exit code 1)."""


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
    return f"; did you mean {f'{before}.{close[0]}' if before else close[0]!r}?"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the error's name."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
