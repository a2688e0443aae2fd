"""How the report writes values."""

from typing import Any

from markupsafe import Markup

from imgcls.runtime.tables import shown

NONE = "\N{EN DASH}"
"""In place of a value that is undefined."""
_LONGEST = 44  # characters of a path


def percent(value: float | None, digits: int = 1, unit: str = "&nbsp;%") -> Markup:
    """Return a share in per cent, as HTML."""
    return Markup(NONE if value is None else f"{100 * value:.{digits}f}{unit}")  # noqa: S704 - numbers


def score(value: float | None) -> str:
    """Return a number with three decimals."""
    return NONE if value is None else f"{value:.3f}"


def count(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}"


def exact(value: float) -> str:
    """Return a number with all its digits, as Python reads it back."""
    return repr(value.item() if hasattr(value, "item") else value)


def short(path: str) -> str:
    """Return the end of a path."""
    return path if len(path) <= _LONGEST else f"…{path[1 - _LONGEST :]}"


def text_of(value: Any) -> Any:
    """Return a text in one line without bytes that are no UTF-8; any other value unchanged."""
    plain = type(value) is str and not value.isprintable()
    return shown(value) if plain else value


FILTERS = {"percent": percent, "score": score, "count": count, "exact": exact, "short": short}
