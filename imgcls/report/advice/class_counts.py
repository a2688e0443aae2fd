"""Classes with few or no images."""

from collections.abc import Iterator

import numpy as np

from imgcls.report.advice.finding import Advice, Finding, fit_again, percent
from imgcls.report.classes import counts_by_class, images_by_class
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.runtime.tables import counted
from imgcls.statistics.intervals import proportion

FEW = 25  # training images
_RARE = 0.1  # of the median class
_SHOWN = 5  # names of classes


def few_images(run: Run) -> Iterator[Finding]:
    """Find classes with at most 25 training images, or with a tenth of the median class and a lower recall.

    The gain is the mean recall of all classes that could be at stake: for each such class the recall of the others
    minus the lower end of its own interval.
    """
    trained, few = images_of_split(run, "train"), few_classes(run)
    if not few:
        return
    stakes = _stakes(run.evaluated, few)
    stakes = {name: stake for name, stake in stakes.items() if trained[name] <= FEW or stake > 0}
    names = sorted(stakes, key=lambda name: (-stakes[name], trained[name]))
    if names:
        gain = sum(max(stake, 0.0) for stake in stakes.values()) / len(run.evaluated.class_names)
        yield Finding(_few_advice(run, names, trained), gain)


def few_classes(run: Run) -> list[str]:
    """Return the classes with at most 25 training images, or a tenth of those of the median class."""
    counts = {name: count for name, count in images_of_split(run, "train").items() if count}
    median = float(np.median(list(counts.values()))) if counts else 0.0
    return [name for name, count in counts.items() if count <= max(FEW, _RARE * median)]


def missing_classes(run: Run) -> Iterator[Finding]:
    """Find classes that train, validation or the evaluated split lacks."""
    if run.splits is None:
        return
    for split in dict.fromkeys(("train", "validation", run.evaluated.split)):
        counts = images_of_split(run, split)
        missing = [name for name, count in counts.items() if not count]
        if missing and sum(counts.values()):
            yield Finding(_missing_advice(split, missing, counts), len(missing) / len(counts) / 2)


def images_of_split(run: Run, split: str) -> dict[str, int]:
    """Return the number of images of each class in a split; of a multi-label class those that have it."""
    evaluated = run.evaluated
    if split == evaluated.split:  # which need not be that of the fit
        return dict(zip(evaluated.class_names, counts_by_class(evaluated).images.tolist(), strict=True))
    return images_by_class(run.labels(split), evaluated)


def _misclassified(evaluated: EvaluatedSplit, index: int) -> list[str]:
    """Return the paths of the images of a class that are not predicted as it."""
    of_class, chosen = (
        each[:, index] if evaluated.multilabel else each == index for each in (evaluated.labels, evaluated.predicted)
    )
    return [evaluated.paths[image] for image in np.flatnonzero(of_class & ~chosen)]


def _stakes(evaluated: EvaluatedSplit, few: list[str]) -> dict[str, float]:
    """Return by how much the recall of each class of few images may be lower than that of the other classes."""
    support, _, found = counts_by_class(evaluated)
    others = (support > 0) & ~np.isin(evaluated.class_names, few)
    expected = float((found[others] / support[others]).mean()) if others.any() else 1.0
    stakes = {}
    for name in few:
        index = evaluated.class_names.index(name)
        lowest = proportion(int(found[index]), int(support[index])).low if support[index] else 0.0
        stakes[name] = expected - lowest
    return stakes


def _few_advice(run: Run, names: list[str], trained: dict[str, int]) -> Advice:
    evaluated, worst = run.evaluated, names[0]
    index = evaluated.class_names.index(worst)
    support, _, found = (int(each[index]) for each in counts_by_class(evaluated))
    others = [count for name, count in trained.items() if count and name not in names]
    median = float(np.median(others or list(trained.values())))
    title = f"Class {worst!r} has only {counted(trained[worst], 'training image')}"
    if len(names) > 1:
        listed = ", ".join(f"{name!r} ({trained[name]})" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        title = f"{len(names)} classes have few training images: {listed}{more}"
    recall = f"{evaluated.split.capitalize()} has no image of {worst!r}, so its recall is unknown."
    if support:
        low, high = proportion(found, support)
        recall = (
            f"On {evaluated.split} {found} of {counted(support, 'image')} of {worst!r} are predicted correctly "
            f"(95 % interval {percent(low)} to {percent(high)})."
        )
    return Advice(
        "few_images",
        title,
        f"The median of the other classes is {median:.0f}. {recall}" if others else recall,
        f"Collect images of {_listed(names)}: about {max(round(median), 4 * FEW)} each for train. "
        f"Until then: {fit_again(run, '--model.loss_config.class_weights auto')}.",
        _misclassified(evaluated, index),
    )


def _missing_advice(split: str, missing: list[str], counts: dict[str, int]) -> Advice:
    effects = {"train": "cannot be learned", "validation": "is not in its score, and did not help to choose the epoch"}
    effect = effects.get(split, "is not in the score")
    return Advice(
        "missing_classes",
        f"{split.capitalize()} has no image of {_listed(missing)}",
        f"{len(missing)} of {len(counts)} classes have no image among the {sum(counts.values()):,} of {split}: "
        f"a class without images {effect}.",
        f"Collect images of {_listed(missing)} for {split}, or remove the class from the other splits.",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more classes" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
