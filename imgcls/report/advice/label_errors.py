"""Suspected label errors, as distinct from classes that the model confuses."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.report.advice.class_counts import few_classes
from imgcls.report.advice.finding import CONFIDENCE, Advice, Finding, fit_again
from imgcls.report.advice.training_curves import trained_too_short
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.runtime.tables import counted
from imgcls.statistics.paired import holm

SEARCHED = ("test", "validation", "train")
_RIGHT = 10  # right predictions of a class, to compare with
_ERRORS = 2
_HIGHEST = 0.95  # rank that counts, so that one image does not decide
_LEAST, _MOST = 1 / 5, 1 / 3  # mean score that is assumed of plain confusions
_TIMES = 2.5  # by which a class may exceed the mean score of the errors of the other classes
_PRIOR = 3  # errors with which that mean is joined
_CLASSES = 3  # with errors, to use that mean
_SHARE = 0.25  # of the images of a label; if more seem wrong, the model is at fault
_ACCURACY = 0.8  # without the suspects, from which on the confidence of a model is evidence about labels

Floats = NDArray[np.float64]


class SuspectedErrors(NamedTuple):
    """Images of a split that are predicted as one class, labelled as another, and look like that one.

    Args:
        split: The evaluated split.
        name: The predicted class.
        images: ``(N,)``, their indices in the split, the most confident first.
        wrong: About how many labels are wrong.
        p: Of ranks as high among plain confusions; corrected for the number of classes and splits.
    """

    split: EvaluatedSplit
    name: str
    images: NDArray[np.intp]
    wrong: int
    p: float

    @property
    def suspects(self) -> NDArray[np.intp]:
        """The images to look at: the most confident, twice as many as the estimated label errors."""
        return self.images[: 2 * self.wrong]


def suspected_label_errors(run: Run) -> Iterator[Finding]:
    """Find classes whose images may have another label.

    An image with a wrong label looks like any other image of its true class, so that the model is as confident as on
    those. On an image that is hard to classify, confidence is lower than that of right predictions of the class usually
    is (the idea of confident learning, Northcutt et al. 2021). So the rank of the confidence among the right
    predictions, 0 to 1, is uniform for wrong labels, and low for plain confusions. The score -log(1 - rank) of wrong
    labels then has an exponential distribution with mean 1. For plain confusions a mean of 1/3 is assumed, as if they
    were as confident as the least confident of three right predictions: more than healthy runs on digits and on solar
    cells have (0.02; 0.06 to 0.32). If at least three other classes have errors, 2.5 times the mean of these is
    assumed, if that is less, but 1/5 at least. The sum of the scores of a class is compared with its gamma
    distribution, with Holm's correction. The predictions on train are the means over the epochs of
    ``train_predictions.csv``. A model is confident in plain mistakes, too, if it was trained too short, has less than
    80 % of the other images right, or makes more than a quarter of the labels of a class seem wrong: nothing is found
    then.
    """
    found = suspected_errors(run)
    for name in dict.fromkeys(each.name for each in found):
        of_class = [each for each in found if each.name == name]
        advice = _advice(run, of_class)
        yield Finding(advice, max(each.wrong / len(each.split) for each in of_class))


def suspected_errors(run: Run) -> list[SuspectedErrors]:
    """Return the classes that images with another label look like, in test, validation and train, smallest p first.

    Labels of classes with few training images are left out, since the model does not know these classes.
    """
    if run.evaluated.multilabel or any(trained_too_short(run)):
        return []
    few = few_classes(run)
    splits = [found for name in SEARCHED if (found := run.evaluation(name)) is not None]
    tests = [each for split in splits for each in _tests(split, few)]
    corrected = [each._replace(p=p) for each, p in zip(tests, holm([each.p for each in tests]), strict=True)]
    suspected = sorted((each for each in corrected if each.p < 1 - CONFIDENCE), key=lambda each: each.p)
    is_plausible = all(_share_of_label(each) <= _SHARE for each in suspected)
    return suspected if is_plausible and _accuracy_of_others(run.evaluated, suspected) >= _ACCURACY else []


def _accuracy_of_others(evaluated: EvaluatedSplit, found: list[SuspectedErrors]) -> float:
    """Return the accuracy without the suspects."""
    suspects = sum(len(each.suspects) for each in found if each.split is evaluated)
    return float(evaluated.correct.sum() / max(len(evaluated) - suspects, 1))


def _share_of_label(found: SuspectedErrors) -> float:
    """Return the share of the images of a label that would be wrong, of the label with the largest."""
    labels, count = found.split.labels, len(found.split.class_names)
    of_label, support = (np.bincount(each, minlength=count) for each in (labels[found.suspects], labels))
    return float((of_label / np.maximum(support, 1)).max() * found.wrong / len(found.suspects))


def _tests(split: EvaluatedSplit, few: list[str]) -> list[SuspectedErrors]:
    from scipy.stats import gamma  # takes half a second

    left_out = [split.class_names.index(name) for name in few if name in split.class_names]
    wrong = ~split.correct & ~np.isin(split.labels, left_out)
    images, scores = {}, {}
    for index in range(len(split.class_names)):
        usual = np.sort(split.confidence[split.correct & (split.predicted == index)])
        errors = np.flatnonzero(wrong & (split.predicted == index))
        if len(usual) >= _RIGHT and len(errors):
            images[index] = errors[np.argsort(-split.confidence[errors], kind="stable")]
            ranks = np.searchsorted(usual, split.confidence[images[index]]) / len(usual)
            scores[index] = -np.log1p(-ranks.clip(max=_HIGHEST))
    tests = []
    for index, values in scores.items():
        mean = _mean_of_confusions([scores[other] for other in scores if other != index])
        if len(values) >= _ERRORS:
            p = float(gamma.sf(values.sum() / mean, len(values)))
            tests.append(SuspectedErrors(split, split.class_names[index], images[index], _wrong(values, mean), p))
    return tests


def _mean_of_confusions(others: list[Floats]) -> float:
    """Return the mean score that plain confusions of a class have at most, by the scores of the other classes."""
    if len(others) < _CLASSES:
        return _MOST
    scores = np.concatenate(others)
    mean = float(_TIMES * scores.sum() + _PRIOR * _MOST) / (len(scores) + _PRIOR)
    return min(max(mean, _LEAST), _MOST)


def _wrong(scores: Floats, mean: float) -> int:
    """Return about how many labels are wrong, whose mean score is 1."""
    share = (scores.mean() - mean) / (1 - mean)
    return max(round(len(scores) * min(float(share), 1.0)), 1)


def _advice(run: Run, found: list[SuspectedErrors]) -> Advice:
    name = found[0].name
    some, (*others, last) = sum(each.wrong for each in found), [each.split.split for each in found]
    where = f"{', '.join(others)} and {last}" if others else last
    action = "Look at these images; correct a label only where it is wrong - the model may be."
    if run.evaluation("train") is None:
        folds = fit_again(run, "--data.fold 1/5")
        action += f" To search train, too: {folds}, and so on to 5/5; each image is in validation once."
    return Advice(
        "suspected_label_errors",
        f"About {counted(some, 'image')} in {where} may have a wrong label, and may be {name!r}",
        " ".join(map(_evidence, found)),
        action,
        [each.split.paths[index] for each in found for index in each.suspects],
    )


def _evidence(found: SuspectedErrors) -> str:
    split = found.split
    given = [split.class_names[label] for label in split.labels[found.images]]
    labels = ", ".join(f"{given.count(label)} {label!r}" for label in dict.fromkeys(given))
    mean = ", in the mean of the epochs" if split.split == "train" else ""
    return (
        f"In {split.split} the model predicts {found.name!r} for images with another label ({labels}){mean}. For some "
        "its confidence is as high as for right predictions, which is rare where it merely confuses two classes."
    )
