"""The comparison of configurations: scores with intervals, and which pairs differ by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from imgcls.compare.configurations import SEED, Setting, differences, grouped
from imgcls.compare.images import CommonImages, common_images
from imgcls.results.run import Run
from imgcls.statistics.bootstrap import bca_interval
from imgcls.statistics.decisions import accuracy, decided, macro_f1
from imgcls.statistics.intervals import Interval, proportion
from imgcls.statistics.paired import Difference, Resampled, contrast, holm, images_needed, mcnemar, resample
from imgcls.statistics.ranking import auroc, average_precision
from imgcls.statistics.scores import ece, ece_interval, log_loss
from imgcls.statistics.weighted import Floats, Score

ALPHA = 0.05
"""Adjusted p-value below which one of two configurations is better."""

_LETTERS = 26


@dataclass(frozen=True)
class Metric:
    """A score of the comparison."""

    score: Score
    title: str
    of_predictions: bool = False  # not of the probabilities
    share: bool = False  # shown in per cent
    higher_is_better: bool = True
    paired: bool = True  # whether a bootstrap of its differences holds

    @property
    def name(self) -> str:
        """The name of the score."""
        return self.score.name


@dataclass(frozen=True)
class Value:
    """A score of a configuration; of several seeds, their mean."""

    value: float
    interval: Interval | None  # 95 %, over images and seeds; None if it is unknown
    of_runs: list[float]


@dataclass(frozen=True)
class Configuration:
    """The runs of a configuration."""

    name: str  # a letter
    runs: list[int]  # indices
    folders: list[str]
    seeds: list[str]
    values: dict[str, Value]  # by metric


@dataclass(frozen=True)
class Pair:
    """Two configurations."""

    one: int  # index
    other: int
    differences: dict[str, Difference]  # metric -> the first minus the second
    adjusted: dict[str, float]  # metric -> p-value, adjusted for the number of pairs
    only: tuple[int, int] | None  # images correct in only the first run, in only the second; None for several seeds
    needed: int | None  # images that would tell their accuracy apart; None if no number would


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs."""

    images: CommonImages
    metrics: list[Metric]  # the first one, accuracy, decides
    configurations: list[Configuration]
    settings: list[Setting]  # keys whose values differ between the configurations
    pairs: list[Pair]  # all pairs of configurations

    def names(self, pair: Pair) -> tuple[str, str]:
        """Return the names of the configurations of a pair."""
        return self.configurations[pair.one].name, self.configurations[pair.other].name

    def better(self, pair: Pair, metric: Metric) -> str | None:
        """Return the name of the configuration that is better beyond chance; None if they cannot be told apart."""
        if pair.adjusted[metric.name] >= ALPHA:
            return None
        is_first = (pair.differences[metric.name].value > 0) == metric.higher_is_better
        return self.names(pair)[0 if is_first else 1]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs on the images that all of them were evaluated on.

    Args:
        runs: At least two.

    Raises:
        ConfigError: If they cannot be compared.
    """
    images, groups = common_images(runs), grouped(runs)
    predictions = [decided(each, len(images.class_names)) for each in images.predicted]
    given = {metric: predictions if metric.of_predictions else images.probs for metric in _metrics(images)}
    metrics = [  # without those that these images do not define, such as AUROC where all have one class
        metric
        for metric, probs in given.items()
        if not any(np.isnan(metric.score(images.labels, run)) for run in probs)
    ]
    strata = images.labels.astype(np.int64) if images.labels.ndim == 1 else None
    drawn, configurations = {}, [_configuration(runs, group, number) for number, group in enumerate(groups)]
    for metric in metrics:
        probs = given[metric]
        found = resample(metric.score, images.labels, probs, strata=strata) if metric.paired else None
        for each in configurations:
            each.values[metric.name] = _value(metric, images, probs, found, each.runs)
        if found is not None:
            drawn[metric.name] = found
    return Comparison(
        images,
        metrics,
        configurations,
        differences([runs[group[0]] for group in groups]),
        _pairs(images, groups, drawn),
    )


def _metrics(images: CommonImages) -> list[Metric]:
    """Return the scores of single-label, or of multi-label data."""
    several = images.labels.ndim == 2
    ranking = Metric(average_precision, "mAP") if several else Metric(auroc, "AUROC")
    return [
        Metric(accuracy, "Exact match" if several else "Accuracy", of_predictions=True, share=True),
        Metric(macro_f1, "Macro F1", of_predictions=True),
        ranking,
        Metric(log_loss, "Log loss", higher_is_better=False),
        Metric(ece, "ECE", higher_is_better=False, paired=False),
    ]


def _configuration(runs: Sequence[Run], group: list[int], number: int) -> Configuration:
    name = chr(ord("A") + number) if number < _LETTERS else f"{number + 1}"
    members = [runs[index] for index in group]
    seeds = [str(run.config.get(SEED)) for run in members]
    return Configuration(name, group, [str(run.folder) for run in members], seeds, {})


def _value(
    metric: Metric, images: CommonImages, probs: Sequence[Floats], found: Resampled | None, group: list[int]
) -> Value:
    """Return the score of the runs of a configuration."""
    labels, single = images.labels, len(group) == 1
    values = [metric.score(labels, probs[index]) for index in group]
    interval: Interval | None = None
    if single and metric.score is accuracy:
        interval = proportion(round(values[0] * len(images)), len(images))
    elif single and metric.score is ece:
        interval = ece_interval(labels, probs[group[0]])
    elif single:
        interval = bca_interval(metric.score, labels, probs[group[0]])
    elif found is not None:
        interval = contrast(found, group).interval
    return Value(float(np.mean(values)), interval, values)


def _pairs(images: CommonImages, groups: list[list[int]], drawn: dict[str, Resampled]) -> list[Pair]:
    """Compare each pair of configurations; p-values are adjusted for their number."""
    correct = [(each == images.labels).reshape(len(images), -1).all(axis=1) for each in images.predicted]
    numbers = list(combinations(range(len(groups)), 2))
    found = [{name: contrast(each, groups[a], groups[b]) for name, each in drawn.items()} for a, b in numbers]
    only: list[tuple[int, int] | None] = []
    for (a, b), each in zip(numbers, found, strict=True):
        if len(groups[a]) == len(groups[b]) == 1:
            one, other = correct[groups[a][0]], correct[groups[b][0]]
            variance = float(np.var(one.astype(np.float64) - other)) / len(images)  # as McNemar's, not within classes
            each[accuracy.name] = each[accuracy.name]._replace(p_value=mcnemar(one, other), image_variance=variance)
            only.append((int((one & ~other).sum()), int((other & ~one).sum())))
        else:
            only.append(None)
    adjusted = {name: holm([each[name].p_value for each in found]) for name in drawn}
    level = 1 - ALPHA / max(len(numbers), 1)
    return [
        Pair(
            *pair,
            each,
            {name: values[index] for name, values in adjusted.items()},
            counts,
            images_needed(each[accuracy.name], len(images), confidence=level),
        )
        for index, (pair, each, counts) in enumerate(zip(numbers, found, only, strict=True))
    ]
