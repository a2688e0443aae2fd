"""Which trials cannot be distinguished from the best one, and what to expect of it on other images."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgcls.checkpoints.run_folder import predictions_file, results_file
from imgcls.results.predictions import EvaluatedSplit, read_predictions, read_record
from imgcls.statistics.decisions import accuracy, decided, label_accuracy, macro_f1
from imgcls.statistics.paired import contrast, expected_of_best, mcnemar, resample
from imgcls.statistics.ranking import auroc, average_precision
from imgcls.statistics.scores import log_loss
from imgcls.statistics.weighted import Floats, Score

log = logging.getLogger(__name__)

_ALPHA = 0.05
_RESAMPLES = 999
_NAMED = 8  # trials
_OF_PREDICTIONS, _OF_PROBABILITIES = (accuracy, label_accuracy, macro_f1), (log_loss, auroc, average_precision)
_ROUNDING = 1e-4, 1e-5  # relative and absolute, of metrics and probabilities in float32


class NearBest(NamedTuple):
    """The trials beside the best one.

    Args:
        best: Number of the best trial.
        worse: Trial -> whether it is worse by more than chance; trials whose predictions are unknown are missing.
        score: What was compared: the metric of the search, without ``validation_``.
        value: That score of the best trial.
        expected: The score to expect of it on other images, since these chose it.
        images: Number of validation images.
    """

    best: int
    worse: dict[int, bool]
    score: str
    value: float
    expected: float
    images: int


class _Trial(NamedTuple):
    """What a trial predicted for the validation images, and the metric that it logged for them; None if unknown."""

    images: EvaluatedSplit
    logged: float | None

    def given(self, score: Score) -> Floats:
        """Return what a score takes: predictions as 0 and 1, or probabilities."""
        classes = len(self.images.class_names)
        return decided(self.images.predicted, classes) if score in _OF_PREDICTIONS else self.images.probs


def near_best(folders: Mapping[int, Path], best: int, metric: str, *, higher_is_better: bool) -> NearBest | None:
    """Compare the best trial with the others, on the validation images, by the metric of the search.

    p-values are multiplied by the number of all pairs of trials, since the best one was chosen among them.

    Args:
        folders: Trial -> its run folder.
        best: Number of the best trial.
        metric: The metric of the search.
        higher_is_better: Whether the search maximises it.

    Returns:
        None if there is nothing to compare, which is logged if there are other trials.
    """
    if len(folders) < 2:
        return None
    found = {number: each for number, folder in folders.items() if (each := _read(folder, metric)) is not None}
    if best not in found:
        _log_unknown(f"trial {best}, the best one, has no {predictions_file('validation')}")
        return None
    trials = {number: each for number, each in found.items() if _is_same(found[best].images, each.images)}
    first, others = trials.pop(best), trials
    if not others:
        _log_unknown("no other trial has predictions of the same images")
        return None
    score = _score_of([first, *others.values()])
    if score is None:
        _log_unknown(
            f"{metric} is none of the scores that can be computed from the predictions (loss, accuracy, macro F1, "
            "macro AUROC, mean average precision)"
        )
        return None
    labels, given = first.images.labels, [each.given(score) for each in (first, *others.values())]
    value, *values = [score(labels, each) for each in given]
    p_values = _p_values(score, first.images, [each.images for each in others.values()], given)
    pairs = len(others) * (len(others) + 1) / 2
    worse = {
        number: bool(p * pairs < _ALPHA and (value > other) == higher_is_better)
        for number, p, other in zip(others, p_values, values, strict=True)
    }
    expected = expected_of_best(score, labels, given, higher_is_better=higher_is_better)
    expected = min(expected, value) if higher_is_better else max(expected, value)
    return NearBest(best, worse, metric.removeprefix("validation_"), value, expected, len(labels))


def sentences(found: NearBest) -> list[str]:
    """Return what the search can and cannot tell."""
    near = sorted(number for number, differs in found.worse.items() if not differs)
    on = f"on {found.images:,} validation images ({found.score})"
    if not near:
        first = f"Trial {found.best} is better than every other one by more than chance {on}"
    else:
        more = f" and {len(near) - _NAMED} more" if len(near) > _NAMED else ""
        named = f"Trial{'s' * (len(near) > 1)} {', '.join(map(str, near[:_NAMED]))}{more}"
        first = f"{named} cannot be distinguished from trial {found.best}, the best one, {on}"
    expected, value = f"{found.expected:.3f}", f"{found.value:.3f}"
    trials = f"The best of {len(found.worse) + 1} trials"
    if expected == value:
        return [first, f"{trials} hardly looks better than it is: expect {found.score} {value} on other images"]
    luck = f"{trials} looks better than it is, since these images chose it: "
    return [first, f"{luck}expect {found.score} {expected} on others, not {value}"]


def _log_unknown(reason: str) -> None:
    log.info("Whether other trials are worse by more than chance is unknown: %s", reason)


def _read(folder: Path, metric: str) -> _Trial | None:
    """Return the predictions of a trial; None if it has none."""
    file = folder / predictions_file("validation")
    if not file.is_file():
        return None
    return _Trial(read_predictions(file), read_record(folder / results_file("validation")).get(metric))


def _is_same(one: EvaluatedSplit, other: EvaluatedSplit) -> bool:
    return one.paths == other.paths and np.array_equal(one.labels, other.labels)


def _score_of(trials: list[_Trial]) -> Score | None:
    """Return the score that gives, from the predictions of each trial, the metric that it logged; None if none does.

    Names do not tell: a metric may have any name, another average over the classes, or thresholds of its own.
    """
    relative, absolute = _ROUNDING

    def agrees(score: Score, trial: _Trial) -> bool:
        value = score(trial.images.labels, trial.given(score))
        return trial.logged is not None and math.isclose(value, trial.logged, rel_tol=relative, abs_tol=absolute)

    scores = (*_OF_PREDICTIONS, *_OF_PROBABILITIES)
    return next((score for score in scores if all(agrees(score, trial) for trial in trials)), None)


def _p_values(score: Score, best: EvaluatedSplit, others: list[EvaluatedSplit], given: list[Floats]) -> list[float]:
    """Return the p-values of equal scores of the best trial and each other one."""
    if score is accuracy:
        return [mcnemar(best.correct, each.correct) for each in others]
    strata = None if best.multilabel else best.labels.astype(np.int64)
    drawn = resample(score, best.labels, given, strata=strata, n_resamples=_RESAMPLES)
    return [contrast(drawn, [0], [number]).p_value for number in range(1, len(given))]
