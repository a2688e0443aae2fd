"""Which trials of a search cannot be distinguished from the best one, and what to expect of it on other images."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgcls.checkpoints.run_folder import predictions_file
from imgcls.results.predictions import EvaluatedSplit, read_predictions
from imgcls.statistics.decisions import accuracy, decided, macro_f1
from imgcls.statistics.paired import contrast, mcnemar, resample
from imgcls.statistics.selection import expected_of_best
from imgcls.statistics.weighted import Score

_ALPHA = 0.05
_RESAMPLES = 999
_NAMED = 8  # trials
_TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1"}


class NearBest(NamedTuple):
    """The trials beside the best one.

    Args:
        best: Number of the best trial.
        worse: Trial -> whether it is worse by more than chance; trials whose answers are unknown are missing.
        score: What was compared.
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


def near_best(folders: Mapping[int, Path], best: int, metric: str) -> NearBest | None:
    """Compare the best trial with the others, on the validation images.

    p-values are multiplied by the number of all pairs of trials, since the best one was chosen among them.

    Args:
        folders: Trial -> its run folder.
        best: Number of the best trial.
        metric: The metric of the search: macro F1 is compared for an F1 score, else accuracy.

    Returns:
        None if the answers of the best trial, or of all others, are unknown.
    """
    files = {number: folder / predictions_file("validation") for number, folder in folders.items()}
    found = {number: read_predictions(file) for number, file in files.items() if file.is_file()}
    if best not in found:
        return None
    first = found.pop(best)
    others = {number: each for number, each in found.items() if _is_same(first, each)}
    if not others:
        return None
    score = macro_f1 if "f1" in metric else accuracy
    p_values = _p_values(score, first, list(others.values()))
    pairs = len(others) * (len(others) + 1) / 2
    differs = {number: bool(p * pairs < _ALPHA) for number, p in zip(others, p_values, strict=True)}
    probs = [decided(each.predicted, len(first.class_names)) for each in (first, *others.values())]
    expected = expected_of_best(score, first.labels, probs)
    value = score(first.labels, probs[0])
    return NearBest(best, differs, score.name, value, min(expected, value), len(first))


def sentences(found: NearBest) -> list[str]:
    """Return what the search can and cannot tell."""
    near = sorted(number for number, differs in found.worse.items() if not differs)
    on = f"on {found.images:,} validation images ({_TITLES[found.score]})"
    if not near:
        first = f"Trial {found.best} is better than every other one by more than chance {on}"
    else:
        more = f" and {len(near) - _NAMED} more" if len(near) > _NAMED else ""
        named = f"Trial{'s' * (len(near) > 1)} {', '.join(map(str, near[:_NAMED]))}{more}"
        first = f"{named} cannot be distinguished from trial {found.best}, the best one, {on}"
    expected, value = f"{found.expected:.3f}", f"{found.value:.3f}"
    title, trials = _TITLES[found.score], f"The best of {len(found.worse) + 1} trials"
    if expected == value:
        return [first, f"{trials} hardly looks better than it is: expect {title} {value} on other images"]
    luck = f"{trials} looks better than it is, since these images chose it: "
    return [first, f"{luck}expect {title} {expected} on others, not {value}"]


def _is_same(one: EvaluatedSplit, other: EvaluatedSplit) -> bool:
    return one.paths == other.paths and np.array_equal(one.labels, other.labels)


def _p_values(score: Score, best: EvaluatedSplit, others: list[EvaluatedSplit]) -> list[float]:
    if score is accuracy:
        return [mcnemar(best.correct, each.correct) for each in others]
    probs = [decided(each.predicted, len(best.class_names)) for each in (best, *others)]
    strata = None if best.multilabel else best.labels.astype(np.int64)
    drawn = resample(score, best.labels, probs, strata=strata, n_resamples=_RESAMPLES)
    return [contrast(drawn, [0], [number]).p_value for number in range(1, len(probs))]
