"""The comparison as a page: one HTML file that needs no other."""

import imgcls
from imgcls.compare.comparison import Comparison, Metric, Pair
from imgcls.compare.sentences import difference_text, interval_text, method, number, p_text, remarks, verdict
from imgcls.report.environment import environment


def render(found: Comparison) -> str:
    """Return the page as HTML."""
    templates = environment("imgcls.compare")
    templates.filters |= {"number": number, "interval": interval_text, "difference": difference_text, "p": p_text}
    page = templates.get_template("compare.html.jinja")
    return page.render(
        found=found,
        version=imgcls.__version__,
        title=" / ".join(each.name for each in found.configurations),
        verdicts=[(pair, verdict(found, pair), pair.better(found.metrics[0])) for pair in found.pairs],
        rows=[
            (metric, [_row(found, pair, metric) for pair in found.pairs]) for metric in found.metrics if metric.paired
        ],
        method=method(found),
        remarks=remarks(found),
    )


def _row(found: Comparison, pair: Pair, metric: Metric) -> dict[str, object]:
    """Return what the table of differences shows of a pair."""
    name, better = metric.score.name, pair.better(metric)
    return {
        "names": [found.configurations[index].name for index in (pair.one, pair.other)],
        "difference": pair.differences[name],
        "adjusted": pair.adjusted[name],
        "better": "" if better is None else found.configurations[better].name,
        "only": pair.only if metric is found.metrics[0] else None,
    }
