"""The page: what each section of ``report.html`` shows, put into its templates."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

import imgcls
from imgcls.report.about_run import balance_of, facts, settings, unused_files
from imgcls.report.advice import Advice
from imgcls.report.confusion import FULL, PAIRS, clustered, confused_pairs, confusion_picture
from imgcls.report.figures import calibration_charts, property_charts, ranking_charts, training_charts
from imgcls.report.headline import MOST_RANKED
from imgcls.report.images import GALLERY, Examples, read_thumbnails
from imgcls.report.numbers import Numbers
from imgcls.report.page_templates import environment, source, text_of
from imgcls.report.sentences import (
    calibration_in_words,
    constant_in_words,
    evaluated_again,
    remark,
    temperature_in_words,
    warnings,
)
from imgcls.results.run import Run

_TILES = ("accuracy", "label_accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "ece")
_EPOCHS = 200  # rows of the table of epochs
_FEW_PAIRS = 10  # that are listed beside the whole matrix
_UPRIGHT = 3  # characters of class names up to which the columns of the matrix have them upright

Content = dict[str, Any]


_SECTIONS = {  # anchor and template -> title
    "verdict": "Verdict",
    "advice": "What limits it, and what to do",
    "training": "Training",
    "classes": "Classes",
    "confusion": "Confusion",
    "ranking": "ROC, precision and recall",
    "calibration": "Calibration",
    "mistakes": "Worst mistakes",
    "properties": "Image properties",
    "data": "Data",
    "run": "Run",
}
_MAY_BE_MISSING = {"training", "ranking", "properties"}


def render(run: Run, numbers: Numbers, advice: Sequence[Advice]) -> str:
    """Return the page as HTML.

    Args:
        run: The run folder.
        numbers: Its figures.
        advice: What limits the model, the most important first.
    """
    templates = environment()
    script = source(templates, "report.js").strip()
    content = _content(run, numbers, advice)
    sections = {each: title for each, title in _SECTIONS.items() if each not in _MAY_BE_MISSING or content[each]}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = templates.get_template("page.html.jinja")
    return page.render(content, sections=sections, script=Markup(script), script_hash=digest)  # noqa: S704 - ours


def _content(run: Run, numbers: Numbers, advice: Sequence[Advice]) -> Content:
    """Return what the templates show."""
    found = numbers.found
    return {
        **_of_verdict(run, numbers),
        **_of_images(run, numbers),
        **_of_classes(numbers),
        **_of_figures(run, numbers),
        "advice": advice,
        "balance": balance_of(run, found),
        "errors": list(found.errors.items()),
        "settings": settings(run),
        **unused_files(run),
    }


def _of_verdict(run: Run, numbers: Numbers) -> Content:
    home = run.home.absolute()
    return {
        "version": imgcls.__version__,
        "folder": str(run.folder.absolute()),
        "title": f"{home.parent.name} / {home.name}" + f", evaluation {run.folder.name}" * (run.folder != run.home),
        "subtitle": str(run.results.get("model_name") or run.results_of(numbers.found.split).get("model_name", "")),
        "found": numbers.found,
        "headlines": numbers.headlines,
        "tiles": _TILES,
        "constant_prediction": constant_in_words(numbers.constant),
        "remark": remark(numbers),
        "warnings": warnings(run, numbers.found),
        "unranked": MOST_RANKED if numbers.found.probs.size > MOST_RANKED else 0,
        "facts": facts(run, numbers.found),
    }


def _of_images(run: Run, numbers: Numbers) -> Content:
    examples = Examples(numbers.found)
    thumbnails, kept = read_thumbnails(run.folder)
    worst = examples.worst()
    return {
        "thumbnails": thumbnails,
        "without_picture": kept > len(thumbnails),
        "cells": examples.cells(),
        "gallery": examples.of(worst[:GALLERY]),
        "mistakes": len(worst),
    }


def _of_classes(numbers: Numbers) -> Content:
    matrix, names, classes = numbers.matrix, numbers.found.class_names, numbers.classes
    by_f1 = sorted(classes, key=lambda each: (each.f1_score is None, each.f1_score or 0.0))
    is_small = len(names) <= FULL
    pairs = [] if matrix is None else confused_pairs(matrix)
    content: Content = {
        "classes": classes,
        "weakest_first": classes if is_small else by_f1,
        "full": FULL,
        "pairs": pairs[: _FEW_PAIRS if is_small else PAIRS],
        "confused": len(pairs),
        "rows": [],
        "upright": max(map(len, names)) <= _UPRIGHT,
        "clustered": None,
    }
    if matrix is not None and is_small:
        content["rows"] = [_row(index, name, matrix[index]) for index, name in enumerate(names)]
    elif matrix is not None:
        order = clustered(matrix)
        named = [str(text_of(names[index])) for index in order]
        content["clustered"] = {"names": named, "source": confusion_picture(matrix, order)}
    return content


def _row(index: int, name: str, images: Any) -> Content:
    support = int(images.sum())
    cells = [
        {"images": int(count), "share": count / max(support, 1), "diagonal": column == index}
        for column, count in enumerate(images)
    ]
    return {"index": index, "name": name, "support": support, "cells": cells}


def _of_figures(run: Run, numbers: Numbers) -> Content:
    found, best = numbers.found, run.results.get("epoch")
    return {
        "training": training_charts(run, best),
        "best": best,
        "evaluated_again": evaluated_again(run),
        "epochs": _epochs(run),
        "ranking": ranking_charts(found, numbers.curves),
        "calibration": calibration_charts(found, numbers.bins),
        "calibration_text": [calibration_in_words(numbers), temperature_in_words(run)],
        "bins": numbers.bins,
        "properties": property_charts(run, found),
    }


def _epochs(run: Run) -> Content:
    if run.history is None:
        return {"columns": [], "rows": [], "more": False}
    table = run.history.tail(_EPOCHS)
    rows = [list(row) for row in table.itertuples(index=False)]
    return {"columns": list(table.columns), "rows": rows, "more": len(run.history) > _EPOCHS}
