"""Numbers: all figures of the evaluated images, computed once for the page and the files beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.errors import ConfigError
from imgcls.report.classes import ClassRow, class_rows
from imgcls.report.confusion import confusion
from imgcls.report.curves import ClassCurve, class_curves, summary_curve
from imgcls.report.headline import Constant, Headline, constant_of, headlines
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.statistics.scores import Bin, reliability


@dataclass(frozen=True)
class Numbers:
    """The figures of a run."""

    found: EvaluatedSplit
    constant: Constant  # the baseline
    headlines: list[Headline]  # the scores of all images
    curves: list[ClassCurve]  # of each class
    classes: list[ClassRow]
    bins: list[Bin]  # of the reliability diagram
    matrix: NDArray[np.int64] | None  # images by true class (row) and predicted class; None for multi-label data

    def intervals(self) -> dict[str, list[float]]:
        """Return metric -> 95 % interval, of the scores that have one."""
        found = {each.name: each.interval for each in self.headlines}
        return {name: [interval.low, interval.high] for name, interval in found.items() if interval is not None}


def numbers_of(run: Run) -> Numbers:
    """Compute the figures of a run.

    Raises:
        ConfigError: If no image has a prediction.
    """
    found = run.evaluated
    if not len(found):
        raise ConfigError(f"{run.folder}: no image of {found.split} has a prediction; there is nothing to report")
    constant = constant_of(found)
    curves = class_curves(found)
    classes = class_rows(found, [(each.auroc, each.average_precision) for each in curves])
    scores = headlines(found, constant, summary_curve(found, curves))
    matrix = None if found.multilabel else confusion(found)
    return Numbers(found, constant, scores, curves, classes, reliability(found.labels, found.probs), matrix)
