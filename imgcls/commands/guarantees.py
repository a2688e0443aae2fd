"""``--risk`` and ``--coverage``: from calibration scores to the least probabilities of predictions and label sets."""

import json
import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.checkpoints.calibration import CALIBRATION
from imgcls.checkpoints.io import checkpoint_id
from imgcls.checkpoints.run_folder import EVALUATION, results_file
from imgcls.commands.resume import Start
from imgcls.errors import ConfigError
from imgcls.predictions.predicted_texts import ABSTAIN, Selection
from imgcls.results.predictions import read_predictions, read_record
from imgcls.runtime.tables import short_path
from imgcls.statistics.selective import (
    coverage_interval,
    images_for_sets,
    images_needed,
    risk_threshold,
    set_threshold,
    smallest_risk,
)

log = logging.getLogger(__name__)

_OTHERS = (
    "evaluate labelled images that the fit has not used, imgcls test CHECKPOINT PHOTOS, and add --calibrate_on "
    "FOLDER/test_predictions.csv"
)


class _Scores(NamedTuple):
    """Scores of calibration images, each ``(N,)``, and what they are of."""

    confidence: NDArray[np.float32]
    correct: NDArray[np.bool_]
    of_truth: NDArray[np.float32]
    name: str
    chose: bool  # the epoch, and the temperature


def find_selection(
    start: Start,
    changed: Mapping[str, Any],
    risk: float | None,
    coverage: float | None,
    calibrate_on: str | os.PathLike[str] | None,
) -> Selection:
    """Return the least probabilities of predictions and in label sets that give guarantees, and log what they mean.

    Args:
        start: The checkpoint.
        changed: The settings that differ from those of the run: they change probabilities.
        risk: The largest share of wrong predictions, above 0 and below 1, at a confidence level of 95 %; None: the
            model never abstains.
        coverage: The share of label sets that contain the true class, above 0 and below 1; None for no sets.
        calibrate_on: The table of an evaluation whose images calibrate; None for the scores in the checkpoint.

    Raises:
        ConfigError: If it cannot be guaranteed; says what could be.
    """
    if risk is None and coverage is None:
        if calibrate_on is not None:
            raise ConfigError("--calibrate_on is used with --risk or --coverage; add --risk 0.02, or --coverage 0.9")
        return Selection()
    _check(start, risk, coverage)
    scores = (
        _of_checkpoint(start, changed)
        if calibrate_on is None
        else _of_table(start, Path(calibrate_on).expanduser(), changed)
    )
    least = None if risk is None else _least_confidence(scores, risk)
    in_set = None if coverage is None else _least_in_set(scores, coverage)
    if scores.chose:
        log.info(
            "These images also chose the epoch and the temperature, so that they look better than new ones. For a "
            "strict guarantee, %s",
            _OTHERS,
        )
    return Selection(least, in_set)


def _check(start: Start, risk: float | None, coverage: float | None) -> None:
    for name, value in (("risk", risk), ("coverage", coverage)):
        if value is not None and not 0 < value < 1:
            percent = value if 1 <= value < 100 else 10
            hint = f"for {percent:g} % type --{name} {percent / 100:g}"
            raise ConfigError(f"--{name} must be above 0 and below 1, got {value:g}; {hint}")
    if start.record.get("multilabel"):
        raise ConfigError("--risk and --coverage need a single-label model; this one is multi-label")
    if risk is not None and ABSTAIN in start.record["class_names"]:
        raise ConfigError(f"--risk: a class is named {ABSTAIN!r}, the prediction of images on which the model abstains")


def _of_checkpoint(start: Start, changed: Mapping[str, Any]) -> _Scores:
    kept = start.content.get(CALIBRATION) or {}
    if "confidence" not in kept or not len(kept["confidence"]):
        raise ConfigError(
            f"{start.path} has no calibration scores, which a fit with validation images and experiment.calibrate "
            f"keeps; {_OTHERS}"
        )
    _refuse_changed(changed, {}, str(start.path))
    confidence, correct, of_truth = (kept[name].numpy() for name in ("confidence", "correct", "of_truth"))
    return _Scores(confidence, correct, of_truth, f"{kept['split']} images", chose=True)


def _of_table(start: Start, path: Path, changed: Mapping[str, Any]) -> _Scores:
    """Return the scores of an evaluation of the same checkpoint with the same settings."""
    table = read_predictions(path)
    if table.multilabel or table.class_names != start.record["class_names"]:
        raise ConfigError(f"--calibrate_on: the classes of {path} are not those of {start.path}")
    evaluated = read_record(path.with_name(results_file(table.split))).get("checkpoint_id")
    if evaluated != checkpoint_id(start.path):
        raise ConfigError(
            f"--calibrate_on: {path} is not an evaluation of {start.path} ({results_file(table.split)} beside it says "
            f"of which); type: imgcls test {start.path} PHOTOS"
        )
    _refuse_changed(changed, read_record(path.with_name(EVALUATION)).get("changed", {}), str(path))
    probs = table.probs.astype(np.float32)
    correct, of_truth = probs.argmax(axis=1) == table.labels, probs[np.arange(len(table)), table.labels]
    return _Scores(probs.max(axis=1), correct, of_truth, f"images of {short_path(path)}", table.chose_epoch)


def _refuse_changed(ours: Mapping[str, Any], theirs: Mapping[str, Any], source: str) -> None:
    """Refuse settings that give other probabilities than those of the calibration images."""
    kept = {key: value for key, value in theirs.items() if "dataset_classes" not in key and "limit_" not in key}
    for key in [*ours, *(key for key in kept if key not in ours)]:
        if key == "trainer.precision" or ours.get(key) == kept.get(key):
            continue
        given, theirs_given = (_option(key, values[key]) if key in values else None for values in (ours, kept))
        had = f"with {theirs_given}" if theirs_given else f"without {given}"
        mend = f"type {theirs_given}" if theirs_given else f"leave out {given}"
        evaluate = " ".join(filter(None, ("imgcls test CHECKPOINT PHOTOS", given, "--output FOLDER")))
        raise ConfigError(
            f"--risk and --coverage: the images of {source} were evaluated {had}; {mend}, or calibrate on the images "
            f"of another evaluation: {evaluate}"
        )


def _option(key: str, value: object) -> str:
    """Return what to type for a setting."""
    name = "--" + key.replace(".init_args", "")
    if value is True:
        return name
    return f"{name} {shlex.quote(value if isinstance(value, str) else json.dumps(value, default=str))}"


def _least_confidence(scores: _Scores, risk: float) -> float:
    found = risk_threshold(scores.confidence, scores.correct, risk)
    count = len(scores.confidence)
    if found is None:
        least = smallest_risk(scores.confidence, scores.correct, above=risk)
        possible = "no higher risk can be guaranteed either" if least is None else f"type --risk {least:g}"
        needed = images_needed(risk)
        reason = "too many of the most confident predictions are wrong"
        if count < needed:
            reason = f"at least {needed:,} are needed, all classified correctly"
        raise ConfigError(
            f"--risk {risk:g} cannot be guaranteed with {count:,} {scores.name}: {reason}; "
            f"{possible}, or calibrate on more images with --calibrate_on"
        )
    log.info(
        "Risk %g at a confidence level of 95 %%%s: predictions with a probability of at least %.4g, which are %d of %d "
        "%s, %d of them wrong",
        risk,
        " (optimistic, since these images chose the epoch)" if scores.chose else "",
        found.confidence,
        found.answered,
        count,
        scores.name,
        found.wrong,
    )
    return found.confidence


def _least_in_set(scores: _Scores, coverage: float) -> float:
    found, count = set_threshold(scores.of_truth, coverage), len(scores.of_truth)
    if found is None:
        needed = images_for_sets(coverage)
        raise ConfigError(f"--coverage {coverage:g} needs at least {needed:,} images, got {count:,} {scores.name}")
    low, high = coverage_interval(count, coverage)
    varies = f"on new images it is between {low:.3f} and {high:.3f} in 95 % of such draws"
    log.info(
        "Coverage %g: a set has the most probable class and all others with a probability of at least %.4g, chosen by "
        "%d %s; %s",
        coverage,
        found,
        count,
        scores.name,
        "it may be lower on new images, since these chose the epoch" if scores.chose else varies,
    )
    return found
