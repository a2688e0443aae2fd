"""The charts of a run: curves of the training, ROC, precision and recall, reliability, image properties."""

import numpy as np
import pandas as pd

from imgcls.report.charts import Chart, Tick, span
from imgcls.report.curves import GRID, ClassCurve, accuracy_of_most_confident, summary_curve
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.statistics.intervals import proportion
from imgcls.statistics.scores import Bin

_COLOURED = 6  # classes up to which each has a colour of its own
_NAMED = {  # column -> its title with the unit
    "width": "Width in pixels",
    "height": "Height in pixels",
    "bytes": "File size",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "saturation": "Saturation",
    "sharpness": "Sharpness",
    "format": "File format",
}
_NOT_SHOWN = {"split", "label"}
_METRICS = 3  # charts of metrics beside the loss
_SHARES = (0.0, 1.0)
_GROUPS = 5  # of equal size, of the values of a property
_KINDS = 8  # of values that are no numbers


def training_charts(run: Run, best: int | None) -> list[Chart]:
    """Return charts of the loss and the metrics by epoch, which are counted from 1 as on the terminal.

    Args:
        run: The run folder.
        best: The best epoch, counted from 0; None if there is none.
    """
    history = run.history
    if history is None or history.empty:
        return []
    monitored = (run.config.get("experiment") or {}).get("monitor") or "validation_f1_score"
    first = ["loss", str(monitored).partition("_")[2], "accuracy"]
    names = [name.partition("_")[2] for name in map(str, history) if name.startswith(("train_", "validation_"))]
    names = sorted(dict.fromkeys(names), key=lambda name: first.index(name) if name in first else len(first))
    return [_epochs(history, name, best) for name in names[: 1 + _METRICS]]


def _epochs(history: pd.DataFrame, metric: str, best: int | None) -> Chart:
    epochs = history["epoch"].to_numpy(np.float64) + 1
    columns = [f"{split}_{metric}" for split in ("train", "validation") if f"{split}_{metric}" in history]
    values = history[columns].to_numpy(np.float64)
    title = metric.replace("_", " ")
    last = max(float(epochs.max()), epochs.min() + 1)
    chart = Chart(title.capitalize(), "epoch", title, (float(epochs.min()), last), span(values.ravel()))
    chart.x_ticks = [tick for tick in chart.x_ticks if "." not in tick.text]
    for name, column in zip(columns, values.T, strict=True):
        chart.add_line(name.partition("_")[0], epochs.tolist(), column.tolist())
        if len(epochs) == 1 and np.isfinite(column[0]):
            chart.add_dot(float(epochs[0]), column[0], f"{name}: {column[0]:.4f}")
    if best is not None and best + 1 in epochs:
        chart.rules.append(Tick(chart.at_x(best + 1), f"best epoch {best + 1}"))
    return chart


def ranking_charts(found: EvaluatedSplit, curves: list[ClassCurve]) -> list[Chart]:
    """Return ROC and precision-recall curves of each class and their mean; with two classes one ROC curve, no mean."""
    mean = summary_curve(found, curves)
    if mean is None:
        return []
    roc = Chart("ROC curve", "false positive rate", "true positive rate (recall)", _SHARES, _SHARES)
    precision = Chart("Precision and recall", "recall", "precision", _SHARES, _SHARES)
    roc.diagonal = True
    has_mean = mean.index < 0
    shown = [each for each in curves if each.auroc is not None]
    is_many = len(shown) > _COLOURED
    for each in [mean, *shown] if has_mean else shown:
        title = "mean of the classes" if each.index < 0 else found.class_names[each.index]
        thin = is_many and each is not mean
        if has_mean or each is mean:
            of_both = "" if has_mean else ", the same for both classes"
            name = f"{title}: AUROC {each.auroc:.3f}{of_both}"
            roc.add_line(name, np.append(0, GRID), np.append(0, each.recall), thin=thin)
        precision.add_line(f"{title}: average precision {each.average_precision:.3f}", GRID, each.precision, thin=thin)
    thin_note = "Thin lines are single classes; their areas are in the table of classes. " if is_many else ""
    roc.note = f"{thin_note}Dashed: guessing."
    precision.note = f"{thin_note}Best precision among the thresholds with at least that recall."
    return [roc, precision]


def calibration_charts(found: EvaluatedSplit, bins: list[Bin]) -> list[Chart]:
    """Return the reliability diagram, from its bins, and the accuracy of the most confident predictions."""
    labels = ("probability", "share of true ones") if found.multilabel else ("confidence", "accuracy")
    chart = Chart("Reliability diagram", *labels, _SHARES, _SHARES)
    chart.diagonal = True
    largest = max(each.n for each in bins)
    for each in bins:
        text = f"{labels[0]} {each.confidence:.3f}, {labels[1]} {each.accuracy:.3f}, {each.n:,} predictions"
        low, high = each.band
        chart.add_bar(each.low, each.high, each.n / largest, text)
        chart.add_band(each.confidence, low, high, 12, f"perfect model: {low:.3f} to {high:.3f}")
        chart.add_dot(each.confidence, each.accuracy, text, marked=not low <= each.accuracy <= high)
    red = "Red points are outside. " if any(dot.marked for dot in chart.dots) else ""
    chart.note = (
        "Grey bands: where a perfectly calibrated model of this size would be in 95 % of such sets. "
        f"{red}Bars at the bottom: how many predictions there are."
    )
    shares, accuracy = accuracy_of_most_confident(found)
    lowest = max(span(accuracy)[0], 0.0)
    title = "Accuracy if the least confident predictions are left out"
    confident = Chart(title, "share of predictions kept", "accuracy", _SHARES, (lowest, 1.0))
    confident.add_line("accuracy", shares, accuracy)
    confident.note = (
        "Predictions are sorted by confidence; at the right all are kept. imgcls predict --risk finds the confidence "
        "below which a model should abstain."
    )
    return [chart, confident]


def property_charts(run: Run, found: EvaluatedSplit) -> list[Chart]:
    """Return the share of wrong predictions by image property, of those in ``image_properties.csv``."""
    table = run.properties(found.split)
    if table is None:
        return []
    table = table.reindex(found.paths)
    names = [name for name in map(str, table) if name not in _NOT_SHOWN]
    return [chart for name in names if (chart := _property(name, table[name], ~found.correct)) is not None]


def _property(
    name: str, values: "pd.Series[float]", wrong: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"
) -> Chart | None:
    """Return the chart of a property; None if it has one value alone."""
    title = _NAMED.get(name, name.replace("_", " ").capitalize())
    numeric = pd.api.types.is_numeric_dtype(values)
    groups = pd.qcut(values, _GROUPS, duplicates="drop") if numeric else values
    kinds = groups.value_counts(sort=not numeric).index[:_KINDS]
    rows = [(_group(name, kind), wrong[(groups == kind).to_numpy(bool, na_value=False)]) for kind in kinds]
    rows = [(text, each) for text, each in rows if len(each)]
    if len(rows) < 2:
        return None
    shares = [proportion(int(each.sum()), len(each)) for _, each in rows]
    chart = Chart(title, title, "share wrong", (0.5, len(rows) + 0.5), (0.0, max(each.high for each in shares) * 1.05))
    middles = values.groupby(groups, observed=True).median() if numeric else None
    chart.x_ticks = []
    for number, ((text, each), interval) in enumerate(zip(rows, shares, strict=True), 1):
        share = float(each.mean())
        label = text if middles is None else _value(name, float(middles.iloc[number - 1]))
        chart.x_ticks.append(Tick(chart.at_x(number), label[:12]))
        chart.add_dot(number, share, f"{text}: {100 * share:.1f} % of {len(each):,} wrong", interval)
    chart.note = "Five groups of equal size, at their medians." if numeric else ""
    return chart


def _group(name: str, kind: object) -> str:
    """Return a group of values as text."""
    return f"{_value(name, kind.left)} to {_value(name, kind.right)}" if isinstance(kind, pd.Interval) else str(kind)


def _value(name: str, value: float) -> str:
    """Return a value of a property as text."""
    if name == "bytes":
        return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
