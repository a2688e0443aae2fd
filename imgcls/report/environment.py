"""The templates of pages that imgcls writes: one style, values as in the report, text escaped."""

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from imgcls.report.formats import FILTERS, text_of


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
    made.filters |= FILTERS
    return made


def source(templates: Environment, name: str) -> str:
    """Return the text of a file among the templates."""
    assert templates.loader is not None  # noqa: S101 - made above
    return templates.loader.get_source(templates, name)[0]
