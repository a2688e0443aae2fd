"""The comparison as a page: one HTML file that needs no other."""

from pathlib import Path

from markupsafe import Markup, escape

import imgcls
from imgcls.checkpoints.run_folder import EVALUATIONS
from imgcls.compare.comparison import Comparison, Metric, Pair
from imgcls.compare.sentences import (
    difference_text,
    interval_text,
    method,
    number,
    other_scores,
    p_text,
    remarks,
    setting_text,
    unbroken,
    verdict,
)
from imgcls.report.page_templates import environment


def render(found: Comparison) -> str:
    """Return the page as HTML."""
    templates = environment("imgcls.compare")
    templates.filters |= {"number": number, "interval": interval_text, "difference": difference_text, "p": p_text}
    templates.filters |= {"setting": setting_text, "unbroken": _unbroken, "run_name": _short}
    page = templates.get_template("compare.html.jinja")
    return page.render(
        found=found,
        version=imgcls.__version__,
        verdicts=[
            (verdict(found, pair), found.better(pair, found.metrics[0]), other_scores(found, pair))
            for pair in found.pairs
        ],
        rows=[
            (metric, [_row(found, pair, metric) for pair in found.pairs]) for metric in found.metrics if metric.paired
        ],
        method=method(found),
        remarks=remarks(found),
    )


def _unbroken(text: str) -> Markup:
    """Return a text with no-break spaces as entities, which the page would else show as unprintable."""
    return Markup(str(escape(unbroken(text))).replace("\N{NO-BREAK SPACE}", "&nbsp;"))  # noqa: S704 - escaped


def _short(folder: str) -> str:
    """Return the last parts of a folder: NAME/version_N, or NAME/version_N/evaluations/N."""
    parts = Path(folder).absolute().parts
    return "/".join(parts[-4:] if parts[-2:-1] == (EVALUATIONS,) else parts[-2:])


def _row(found: Comparison, pair: Pair, metric: Metric) -> dict[str, object]:
    """Return what the table of differences shows of a pair."""
    return {
        "names": found.names(pair),
        "difference": pair.differences[metric.name],
        "adjusted": pair.adjusted[metric.name],
        "better": found.better(pair, metric),
        "only": pair.only if metric is found.metrics[0] else None,
    }
