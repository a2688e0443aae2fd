"""The scores of all images, each with its interval and that of always predicting the most frequent class."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from imgcls.report.curves import ClassCurve
from imgcls.results.predictions import EvaluatedSplit
from imgcls.statistics.bootstrap import bca_interval
from imgcls.statistics.decisions import balanced_accuracy, decided, label_accuracy, macro_f1
from imgcls.statistics.intervals import Interval, proportion
from imgcls.statistics.ranking import auroc, average_precision
from imgcls.statistics.scores import brier, ece, ece_interval, ece_of_perfect_model, log_loss
from imgcls.statistics.weighted import Floats, Labels, Score

MOST_RANKED = 200_000
"""Probabilities, images times classes, up to which areas under curves get a bootstrap interval."""
_RANKINGS = 15_000_000  # resamples times probabilities
_RESAMPLES = (199, 1999)
_TOP, _CLASSES_FOR_TOP = 5, 10


@dataclass(frozen=True)
class Headline:
    """A score of all images."""

    name: str  # for machines
    title: str  # for people
    value: float
    about: str  # what it means, in a sentence
    interval: Interval | None = None  # 95 %
    baseline: float | None = None  # the same score of the best constant prediction
    perfect: Interval | None = None  # of ECE: where a perfectly calibrated model with these probabilities would be
    share: bool = False  # of images, shown in per cent


@dataclass(frozen=True)
class Constant:
    """The best constant prediction, the same for all images."""

    names: list[str]  # the most frequent class; multi-label: the most frequent set of classes
    predicted: Labels  # for each image; multi-label: for each class the more frequent of yes and no
    accuracy: float
    probs: Floats  # (N, classes), the frequencies of the classes


def constant_of(found: EvaluatedSplit) -> Constant:
    """Return the most frequent class or set of classes of a split, the first where several are as frequent."""
    count, classes = found.probs.shape
    if not found.multilabel:
        images = np.bincount(found.labels, minlength=classes)
        best = int(images.argmax())
        frequencies = np.broadcast_to(images / count, (count, classes))
        return Constant([found.class_names[best]], np.full(count, best), float(images[best] / count), frequencies)
    sets, images = np.unique(found.labels, axis=0, return_counts=True)
    names = [found.class_names[index] for index in np.flatnonzero(sets[images.argmax()])]
    shares = np.broadcast_to(found.labels.mean(axis=0), (count, classes))
    return Constant(names, shares > 0.5, float(images.max() / count), shares)


def _bootstrap(score: Score, labels: Labels, probs: Floats, **options: Any) -> Interval | None:
    """Return the interval of a score; None where no resample differs, or there is one class alone."""
    if labels.ndim == 1 and probs.shape[1] == 1:
        return None
    found = bca_interval(score, labels, probs, **options)
    return found if found.low < found.high else None


def _of_ranking(score: Score, labels: Labels, probs: Floats) -> Interval | None:
    """Return the interval of an area under a curve, by fewer resamples the more there is to sort; None if too much."""
    if probs.size > MOST_RANKED:
        return None
    return _bootstrap(score, labels, probs, n_resamples=int(np.clip(_RANKINGS // probs.size, *_RESAMPLES)))


def headlines(found: EvaluatedSplit, constant: Constant, areas: ClassCurve | None) -> list[Headline]:
    """Return the scores of a split with at least one image, the most important first.

    Args:
        found: The evaluated images.
        constant: The best constant prediction.
        areas: The curves whose areas count; None if they are undefined, since all images are of one class.
    """
    predicted = decided(found.predicted, found.probs.shape[1])
    ranking = [] if areas is None else _ranking(found, constant, areas)
    scores = [*_of_predictions(found, constant, predicted), *ranking, *_probabilities(found, constant)]
    known = [each for each in scores if math.isfinite(each.value)]
    return [replace(each, baseline=None) if math.isnan(each.baseline or 0) else each for each in known]


def _of_predictions(found: EvaluatedSplit, constant: Constant, predicted: Floats) -> list[Headline]:
    """Return the scores of the predictions."""
    hits, count, several = int(found.correct.sum()), len(found), found.multilabel
    title, about = ("Exact match", "images whose classes are all right") if several else ("Accuracy", "images right")
    share = Headline(
        "accuracy", title, hits / count, f"Share of {about}.", proportion(hits, count), constant.accuracy, share=True
    )
    always = decided(constant.predicted, found.probs.shape[1])
    f1 = Headline(
        "macro_f1",
        "Macro F1",
        macro_f1(found.labels, predicted),
        "Mean F1 score of the classes, each counted once.",
        _bootstrap(macro_f1, found.labels, predicted),
        macro_f1(found.labels, always),
    )
    if several:
        about = "Share of all yes-or-no predictions, one per class and image, that are right."
        usual = float((found.labels == constant.predicted).mean())
        value, interval = label_accuracy(found.labels, predicted), _bootstrap(label_accuracy, found.labels, predicted)
        labels = Headline("label_accuracy", "Label accuracy", value, about, interval, usual, share=True)
        return [share, labels, f1]
    recall = Headline(
        "balanced_accuracy",
        "Balanced accuracy",
        balanced_accuracy(found.labels, predicted),
        "Mean recall of the classes, each counted once.",
        _bootstrap(balanced_accuracy, found.labels, predicted, strata=found.labels),
        balanced_accuracy(found.labels, always),
        share=True,
    )
    return [share, *_top(found), recall, f1]


def _top(found: EvaluatedSplit) -> list[Headline]:
    """Return the share of images whose class is among the five most probable, if there are many classes."""
    if found.probs.shape[1] <= _CLASSES_FOR_TOP:
        return []
    truth = found.probs[np.arange(len(found)), found.labels]
    hits = int(((found.probs > truth[:, None]).sum(axis=1) < _TOP).sum())
    usual = np.sort(np.bincount(found.labels))[-_TOP:].sum() / len(found)
    about = f"Share of images whose class is among the {_TOP} most probable."
    interval = proportion(hits, len(found))
    return [Headline("top_5", "Top-5 accuracy", hits / len(found), about, interval, float(usual), share=True)]


def _ranking(found: EvaluatedSplit, constant: Constant, areas: ClassCurve) -> list[Headline]:
    """Return the scores of the order of the probabilities."""
    labels, probs, names = found.labels, found.probs, found.class_names
    two = areas.index >= 0
    of = f"of {names[1]!r} against {names[0]!r}" if two else "each class against the rest, mean"
    present = constant.probs[0, constant.probs[0] > 0]
    return [
        Headline(
            "auroc",
            "AUROC",
            areas.auroc or 0.0,
            f"Area under the ROC curve, {of}: how well the probabilities order the images.",
            _of_ranking(auroc, labels, probs),
            0.5,
        ),
        Headline(
            "average_precision",
            "Average precision",
            areas.average_precision or 0.0,
            f"Area under the curve of precision and recall, {of}.",
            _of_ranking(average_precision, labels, probs),
            float(constant.probs[0, 1] if two else present.mean()),
        ),
    ]


def _probabilities(found: EvaluatedSplit, constant: Constant) -> list[Headline]:
    """Return the scores of the probabilities."""
    labels, probs, usual = found.labels, found.probs, constant.probs
    perfect = ece_of_perfect_model(probs, multilabel=found.multilabel)
    return [
        Headline(
            "log_loss",
            "Log loss (NLL)",
            log_loss(labels, probs),
            "Mean of -log(probability of the true class); lower is better. The baseline: class frequencies.",
            _bootstrap(log_loss, labels, probs),
            log_loss(labels, usual),
        ),
        Headline(
            "brier",
            "Brier score",
            brier(labels, probs),
            "Mean squared error of the probabilities; lower is better.",
            _bootstrap(brier, labels, probs),
            brier(labels, usual),
        ),
        Headline(
            "ece",
            "Calibration (ECE)",
            ece(labels, probs),
            "Mean gap between confidence and accuracy in 15 bins; compare it with a perfect model of this size.",
            ece_interval(labels, probs),
            perfect=perfect,
        ),
    ]
