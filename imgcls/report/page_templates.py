"""The templates of pages that imgcls writes, and how these write values."""

import re
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from imgcls.runtime.tables import shown

NONE = "\N{EN DASH}"
"""In place of a value that is undefined."""
_LONGEST = 30  # characters of a path


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
    """Return the last folders and the name of a path, as many as fit."""
    shown = path
    while len(shown) > _LONGEST and "/" in shown:
        shown = shown.partition("/")[2]
    shown = f"…{shown[1 - _LONGEST :]}" if len(shown) > _LONGEST else shown
    return shown if shown == path or shown.startswith("…") else f"…/{shown}"


def text_of(value: Any) -> Any:
    """Return a text in one line without bytes that are no UTF-8; any other value unchanged."""
    plain = type(value) is str and not value.isprintable()
    return shown(value) if plain else value


def commands(text: str) -> Markup:
    """Return a text as HTML, with what is between backticks as code whose words are not broken."""

    def code(found: re.Match[str]) -> str:
        return "<code>" + " ".join(f"<span>{word}</span>" for word in found[1].split(" ")) + "</code>"

    return Markup(re.sub("`([^`]+)`", code, str(escape(text_of(text)))))  # noqa: S704 - escaped


@cache
def environment(package: str = "imgcls.report") -> Environment:
    """Return the templates of a package, and those of the report; text in them has no bytes that are not UTF-8."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys([package, "imgcls.report"])]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=text_of,
    )
    made.filters |= {each.__name__: each for each in (commands, percent, score, count, exact, short)}
    return made


def source(templates: Environment, name: str) -> str:
    """Return the text of a file among the templates."""
    assert templates.loader is not None  # noqa: S101 - made above
    return templates.loader.get_source(templates, name)[0]
