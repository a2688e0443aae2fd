"""Shortcuts: a property of the whole image, such as brightness, that predicts a class without the image content."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.report.advice.finding import CONFIDENCE, Advice, Finding, percent
from imgcls.report.advice.properties import WORDS, properties_of
from imgcls.results.run import Run
from imgcls.runtime.tables import counted
from imgcls.statistics.intervals import Interval, wilson

_NUISANCES = ("brightness", "saturation", "width", "height", "aspect", "format")
"""Not contrast, sharpness and bytes, which depend on the image content: a 1 is smoother than an 8."""

_PREDICTS = 0.85  # mean of sensitivity and specificity, at the lower end of the interval
_IMAGES = 8  # of a class in the sample
_FOLDS = 5
_LEAVES = 4  # of the tree, per class
_SHOWN = 5  # names of classes


class _Shortcut(NamedTuple):
    name: str  # of the property
    label: str
    sensitivity: float
    specificity: float
    low: float  # of their mean
    images: int


def shortcuts(run: Run) -> Iterator[Finding]:
    """Find the class that one property predicts best by itself, among the training images.

    A decision tree on the one property, cross-validated in five folds, predicts the class. What counts is the mean of
    sensitivity and specificity of a class; by chance it is 50 %, in balanced and imbalanced data. Its interval is
    from Wilson intervals with Bonferroni's correction for the number of classes and properties.
    """
    table = properties_of(run, "train")
    if table is None or run.splits is None or run.evaluated.multilabel:
        return
    rows = run.splits[run.splits["split"] == "train"].drop_duplicates("path").set_index("path")
    labels = rows["label"].reindex(table.index).dropna()
    table = table.loc[labels.index]
    names = [name for name in _NUISANCES if name in table]
    found = [each for name in names for each in _shortcuts(table[name], labels, len(names))]
    if found and (best := max(found, key=lambda each: each.low)).low >= _PREDICTS:
        told = sorted({each.label for each in found if each.name == best.name and each.low >= _PREDICTS})
        of_all = len(told) == labels.nunique()
        which = "the class" if of_all else f"class{'es' * (len(told) > 1)} {', '.join(map(repr, told[:_SHOWN]))}"
        yield Finding(_advice(best, which, table[best.name], labels), best.low - 0.5, urgency=0)


def _shortcuts(values: "pd.Series[float]", labels: "pd.Series[str]", tests: int) -> list[_Shortcut]:
    counts = labels.value_counts()
    names = [name for name, count in counts.items() if count >= _IMAGES]
    if len(counts) < 2 or not names:
        return []
    predicted = _by_tree(_numbers(values), labels.to_numpy(), int(counts.size))
    return [_tested(str(values.name), str(name), labels.to_numpy(), predicted, tests * len(names)) for name in names]


def _tested(prop: str, name: str, labels: NDArray[np.object_], predicted: NDArray[np.object_], tests: int) -> _Shortcut:
    ours, others = predicted[labels == name] == name, predicted[labels != name] != name
    confidence = 1 - (1 - CONFIDENCE) / (2 * tests)
    bounds: list[Interval] = [wilson(int(each.sum()), len(each), confidence) for each in (ours, others)]
    low = sum(bound.low for bound in bounds) / 2
    return _Shortcut(prop, name, float(ours.mean()), float(others.mean()), low, len(ours))


def _by_tree(values: NDArray[np.float64], labels: NDArray[np.object_], classes: int) -> NDArray[np.object_]:
    """Predict the class of each image from its value by trees that were grown on the other folds."""
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=_LEAVES * classes, class_weight="balanced", random_state=0)
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(tree, values[:, None], labels, cv=folds))


def _numbers(values: "pd.Series[float]") -> NDArray[np.float64]:
    """Return values as numbers, texts numbered in the order of the alphabet; -1 where there is none."""
    numbers = values if pd.api.types.is_numeric_dtype(values) else pd.Series(pd.Categorical(values).codes)
    return np.asarray(numbers.fillna(-1), np.float64)


def _advice(shortcut: _Shortcut, which: str, values: "pd.Series[float]", labels: "pd.Series[str]") -> Advice:
    word = WORDS[shortcut.name]
    ours, others = values[labels == shortcut.label], values[labels != shortcut.label]
    evidence = (
        f"In a sample of train, {word} alone recognises {shortcut.label!r} with a sensitivity of "
        f"{percent(shortcut.sensitivity)} ({counted(shortcut.images, 'image')}) and a specificity of "
        f"{percent(shortcut.specificity)} ({counted(len(others), 'other image')}), by a cross-validated decision tree. "
        f"The mean of both is at least {percent(shortcut.low)} (confidence level 95 %); by chance it is 50 %. "
        f"{_typical(shortcut, ours, others)}"
    )
    return Advice(
        "shortcut",
        f"{word.capitalize()} predicts {which} by itself (a shortcut): the model may have learned it instead of the "
        "image content",
        evidence,
        f"Make or collect images in which {word} does not depend on the class, and test on such images. "
        f"{_REMEDIES.get(shortcut.name, _SAVED_ALIKE)}",
        [str(path) for path in ours.index[:12]],
    )


_SAVED_ALIKE = "Save the images of all classes in the same way: same source, size, crop and file type."
_REMEDIES = {
    "brightness": "To train without it, add albumentations.RandomBrightnessContrast to data.augmentations.train.",
    "saturation": "To train without it, add albumentations.HueSaturationValue or ToGray to data.augmentations.train.",
}


def _typical(shortcut: _Shortcut, ours: "pd.Series[float]", others: "pd.Series[float]") -> str:
    if shortcut.name == "format":
        return f"Most of its images are {ours.mode().iloc[0]}, most others {others.mode().iloc[0]}."
    return f"Its median is {ours.median():.4g} in {shortcut.label!r} and {others.median():.4g} elsewhere."
