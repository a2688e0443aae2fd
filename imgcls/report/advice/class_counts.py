"""Classes with few or no images."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from imgcls.datasets.labels import read_names
from imgcls.report.advice.finding import Advice, Finding, counted, percent
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.statistics.intervals import proportion

FEW = 25  # training images
_RARE = 0.1  # of the median class
_SHOWN = 5  # names of classes


def few_images(run: Run) -> Iterator[Finding]:
    """Find classes with at most 25 training images, or with a tenth of the median class and a lower recall.

    The gain is the mean recall of all classes that could be at stake: for each such class the recall of the others
    minus the lower end of its own interval.
    """
    if run.splits is None:
        return
    counts, evaluated = images_by_class(run, "train"), run.evaluated
    trained = {name: count for name, count in counts.items() if count}
    few = few_classes(run)
    if not few:
        return
    stakes = {name: _at_stake(evaluated, name, few) for name in few}
    stakes = {name: stake for name, stake in stakes.items() if trained[name] <= FEW or stake > 0}
    names = sorted(stakes, key=lambda name: (-stakes[name], trained[name]))
    if names:
        advice = _few_advice(run, names, trained)
        yield Finding(advice, sum(max(stakes[name], 0.0) for name in names) / len(evaluated.class_names))


def few_classes(run: Run) -> list[str]:
    """Return the classes with at most 25 training images, or a tenth of those of the median class."""
    counts = {name: count for name, count in images_by_class(run, "train").items() if count}
    median = float(np.median(list(counts.values()))) if counts else 0.0
    return [name for name, count in counts.items() if count <= max(FEW, _RARE * median)]


def missing_classes(run: Run) -> Iterator[Finding]:
    """Find classes that train, validation or the evaluated split lacks."""
    if run.splits is None:
        return
    for split in dict.fromkeys(("train", "validation", run.evaluated.split)):
        counts = images_by_class(run, split)
        missing = [name for name, count in counts.items() if not count]
        if missing and sum(counts.values()):
            yield Finding(_missing_advice(split, missing, counts), len(missing) / len(counts) / 2)


def images_by_class(run: Run, split: str) -> dict[str, int]:
    """Return the number of images of each class in a split; of a multi-label class those that have it."""
    counts = dict.fromkeys(run.evaluated.class_names, 0)
    if run.splits is None:
        return counts
    labels = run.splits.loc[run.splits["split"] == split, "label"].value_counts()
    for text, count in labels.items():
        for name in read_names(str(text)) if run.evaluated.multilabel else (str(text),):
            counts[name] = counts.get(name, 0) + int(count)
    return counts


def _of_class(evaluated: EvaluatedSplit, name: str) -> tuple[NDArray[np.bool_], list[str]]:
    """Return for each image of a class whether the class was found, and the paths of those where it was not."""
    index = evaluated.class_names.index(name)
    if evaluated.multilabel:
        has, found = evaluated.labels[:, index], evaluated.predicted[:, index]
    else:
        has, found = evaluated.labels == index, evaluated.predicted == index
    missed = np.flatnonzero(has & ~found)
    return np.asarray(found[has]), [evaluated.paths[image] for image in missed]


def _at_stake(evaluated: EvaluatedSplit, name: str, few: list[str]) -> float:
    """Return by how much the recall of a class may be lower than that of the classes with enough images."""
    ours, _ = _of_class(evaluated, name)
    found = [_of_class(evaluated, other)[0] for other in evaluated.class_names if other not in few]
    others = [each for each in found if len(each)]
    expected = float(np.mean([each.mean() for each in others])) if others else 1.0
    return expected - (proportion(int(ours.sum()), len(ours)).low if len(ours) else 0.0)


def _few_advice(run: Run, names: list[str], trained: dict[str, int]) -> Advice:
    evaluated, worst = run.evaluated, names[0]
    ours, missed = _of_class(evaluated, worst)
    median = float(np.median(list(trained.values())))
    listed = ", ".join(f"{name!r} ({trained[name]})" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    title = (
        f"Class {worst!r} has only {counted(trained[worst], 'training image')}"
        if len(names) == 1
        else f"{len(names)} classes have few training images: {listed}{more}"
    )
    recall = f"{evaluated.split} has no image of {worst!r}, so its recall is unknown"
    if len(ours):
        low, high = proportion(int(ours.sum()), len(ours))
        recall = (
            f"On {evaluated.split} {int(ours.sum())} of {counted(len(ours), 'image')} of {worst!r} are found "
            f"(95 % interval {percent(low)} to {percent(high)})"
        )
    most = f"The median class has {median:.0f} training images."
    return Advice(
        "few_images",
        title,
        f"{most} {recall}.",
        f"Collect images of {_listed(names)}: about {max(round(median), 4 * FEW)} each for train. "
        "Until then: --model.loss_config.class_weights auto.",
        missed,
    )


def _missing_advice(split: str, missing: list[str], counts: dict[str, int]) -> Advice:
    effect = "cannot be learned" if split == "train" else "is not in the score, and did not help to choose the epoch"
    return Advice(
        "missing_classes",
        f"{split.capitalize()} has no image of {_listed(missing)}",
        f"{len(missing)} of {len(counts)} classes have no image among the {sum(counts.values()):,} of {split}: "
        f"what is absent {effect}.",
        f"Collect images of {_listed(missing)} for {split}, or remove the class from the other splits.",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more classes" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
