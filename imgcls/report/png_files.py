"""The main figures as PNG files, for slides and for TensorBoard."""

import logging
import warnings
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator

from imgcls.report.confusion import FULL, clustered, row_shares
from imgcls.report.numbers import Numbers
from imgcls.report.page_templates import text_of
from imgcls.results.run import Run
from imgcls.runtime.atomic_files import replacing
from imgcls.runtime.tables import short_path

log = logging.getLogger(__name__)

FOLDER = "report"
_FONTS = (  # the first has Latin, Greek and Cyrillic; the others Chinese, Japanese and Korean, where they are installed
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
)
_DPI = 110
_WRITTEN = 14  # classes up to which the cells have their numbers
_LONGEST = 24  # characters of a class name


def write_pngs(run: Run, numbers: Numbers) -> list[Path]:
    """Write ``report/training.png``, ``confusion.png`` and ``calibration.png``, those that there is data for.

    Args:
        run: The run folder.
        numbers: Its figures.

    Returns:
        The files.

    Raises:
        WriteError: If a file cannot be written.
    """
    folder = run.folder / FOLDER
    folder.mkdir(exist_ok=True)
    written = []
    with rc_context({"font.family": [name for name in _FONTS if name in fontManager.get_font_names()]}):
        figures = {"training": _training(run), "confusion": _confusion(numbers), "calibration": _calibration(numbers)}
        for name, figure in figures.items():
            if figure is not None:
                written.append(folder / f"{name}.png")
                _save(figure, written[-1])
    return written


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught, replacing(path) as file:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=_DPI)
    if caught:
        log.info("%s: no installed font has all characters of the class names; report.html has them", short_path(path))


def _training(run: Run) -> Figure | None:
    """Draw the losses by epoch."""
    history = run.history
    names = [name for name in ("train_loss", "validation_loss") if history is not None and name in history]
    if history is None or not names:
        return None
    figure = Figure((6.4, 4.2))
    axes = figure.subplots()
    for name in names:
        axes.plot(history["epoch"] + 1, history[name], marker="o" * (len(history) == 1), label=name.partition("_")[0])
    best = run.of_fit.get("epoch")
    if best is not None:
        axes.axvline(best + 1, color="green", linestyle="--", linewidth=1, label=f"best epoch {best + 1}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name(axes, "Loss", "epoch", "loss")
    axes.legend(frameon=False)
    return figure


def _confusion(numbers: Numbers) -> Figure | None:
    """Draw the confusion matrix; of many classes in an order that puts confused ones next to each other."""
    matrix, names = numbers.matrix, numbers.found.class_names
    if matrix is None:
        return None
    order = list(range(len(names))) if len(names) <= FULL else clustered(matrix)
    shares = row_shares(matrix)[np.ix_(order, order)]
    cells = min(0.45 * len(names) + 1, 11.0)  # inches
    margin = 0.8 + 0.09 * max(len(_plain(name)) for name in names) * (len(names) <= FULL)
    side = cells + margin + 0.5
    figure = Figure((side, side))
    axes = figure.add_axes((margin / side, margin / side, cells / side, cells / side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= FULL:
        texts = [_plain(name) for name in names]
        axes.set_xticks(range(len(names)), texts, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), texts)
    if len(names) <= _WRITTEN:
        for (row, column), images in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{images:,}" if images else "", ha="center", va="center", color=colour, size=9)
    _name(axes, f"Confusion ({numbers.found.split})", "predicted class", "true class")
    return figure


def _calibration(numbers: Numbers) -> Figure:
    """Draw the reliability diagram."""
    found, bins = numbers.found, numbers.bins
    figure = Figure((5.2, 4.8))
    axes = figure.subplots()
    confidence = [each.confidence for each in bins]
    heights = [each.band.high - each.band.low for each in bins]
    axes.bar(confidence, heights, 0.03, [each.band.low for each in bins], color="0.8", label="a perfect model")
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    axes.plot(confidence, [each.accuracy for each in bins], "o", label="this model")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    labels = ("probability", "share of true ones") if found.multilabel else ("confidence", "accuracy")
    _name(axes, f"Reliability ({found.split})", *labels)
    axes.legend(frameon=False, loc="upper left")
    return figure


def _name(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(name: str) -> str:
    """Return a class name that matplotlib takes as it is: a dollar sign would begin a formula."""
    text = str(text_of(name))
    return (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…").replace("$", r"\$")
