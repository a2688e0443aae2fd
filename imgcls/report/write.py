"""Write the report of a run, and its tables and figures for machines."""

import json
from pathlib import Path

from imgcls.checkpoints.run_folder import REPORT, RESULTS, results_file
from imgcls.report.advice import Advice, advise
from imgcls.report.classes import ClassRow
from imgcls.report.numbers import Numbers, numbers_of
from imgcls.report.page import render
from imgcls.report.png_files import write_pngs
from imgcls.results.predictions import read_record
from imgcls.results.run import Run, read_run
from imgcls.runtime.atomic_files import write_text
from imgcls.runtime.tables import write_rows

CLASSES, CONFUSION = "per_class.csv", "confusion.csv"
_SCORES = ("precision", "recall", "f1_score", "auroc", "average_precision")
_BOUNDS = ("precision_low", "precision_high", "recall_low", "recall_high")
_COLUMNS = ("class", "support", "predicted", *_SCORES, *_BOUNDS)
_OUTCOMES = ("true_positive", "false_negative", "false_positive", "true_negative")


def write_report(path: Path, output: Path | None = None) -> Path:
    """Write ``report.html``; beside it tables, pictures, and the intervals in the results files.

    Args:
        path: The run folder, one of its ``evaluations/N``, or a checkpoint in it.
        output: Another file for the page, which is then all that is written.

    Returns:
        The page.

    Raises:
        ConfigError: If the folder has no predictions, or a file of it cannot be read.
        WriteError: If a file cannot be written.
    """
    run = read_run(path)
    return write_report_of(run, advise(run), output)


def write_report_of(run: Run, advice: list[Advice], output: Path | None = None) -> Path:
    """Write the report of a run whose advice is known, as :func:`write_report` does."""
    numbers = numbers_of(run)
    path = output or run.folder / REPORT
    page = render(run, numbers, advice)
    if output is None:
        _write_tables(run.folder, numbers)
        _write_intervals(run.folder, numbers)
        write_pngs(run, numbers)
    write_text(path, page)
    return path


def _write_tables(folder: Path, numbers: Numbers) -> None:
    """Write the scores of each class, and the counts by true and predicted class."""
    write_rows(folder / CLASSES, _COLUMNS, map(_scores, numbers.classes))
    found, names = numbers.found, numbers.found.class_names
    if numbers.matrix is not None:
        columns = ["class", *(f"predicted_{name}" for name in names)]
        rows = ([name, *row] for name, row in zip(names, numbers.matrix.tolist(), strict=True))
        write_rows(folder / CONFUSION, columns, rows)
    else:
        write_rows(folder / CONFUSION, ["class", *_OUTCOMES], (_outcomes(each, len(found)) for each in numbers.classes))


def _scores(each: ClassRow) -> list[object]:
    bounds = [bound for interval in (each.precision_interval, each.recall_interval) for bound in interval or ("", "")]
    scores = (each.precision, each.recall, each.f1_score, each.auroc, each.average_precision)
    return [each.name, each.support, each.predicted, *scores, *bounds]


def _outcomes(each: ClassRow, images: int) -> list[object]:
    """Return the name of a class and its four counts in multi-label data."""
    false_negatives, false_positives = each.support - each.right, each.predicted - each.right
    true_negatives = images - each.support - false_positives
    return [each.name, each.right, false_negatives, false_positives, true_negatives]


def _write_intervals(folder: Path, numbers: Numbers) -> None:
    """Add ``intervals``, split -> metric -> [low, high], to the results files that there are."""
    split = numbers.found.split
    for path in (folder / RESULTS, folder / results_file(split)):
        if path.exists():
            content = read_record(path)
            intervals = content.get("intervals", {}) | {split: numbers.intervals()}
            write_text(path, json.dumps(content | {"intervals": intervals}, indent=2) + "\n")
