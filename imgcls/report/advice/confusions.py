"""Pairs of classes that are confused more often than chance would have it."""

from collections.abc import Iterator

import numpy as np

from imgcls.report.advice.class_counts import few_classes
from imgcls.report.advice.doubted_labels import doubted_classes
from imgcls.report.advice.finding import CONFIDENCE, Advice, Finding, counted, p_value, percent
from imgcls.results.run import Run
from imgcls.statistics.paired import holm

_IMAGES = 3
_GAIN = 0.5  # of the errors of a pair that better images or labels may avoid


def confused_pair(run: Run) -> Iterator[Finding]:
    """Find the pair, true and predicted, that has the most errors, if they are more than chance has it.

    By chance the errors of a class are spread over all other classes alike (binomial test with Holm's correction).
    Classes with few images and those whose labels are doubted have findings of their own. Two classes have only one
    pair.
    """
    from scipy.stats import binom  # takes half a second

    evaluated = run.evaluated
    classes = len(evaluated.class_names)
    if evaluated.multilabel or classes < 3:
        return
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (evaluated.labels, evaluated.predicted), 1)
    support = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    errors = counts.sum(axis=1)
    pairs = np.argwhere(counts >= 1)
    tests = holm([float(binom.sf(counts[t, p] - 1, errors[t], 1 / (classes - 1))) for t, p in pairs])
    explained = {*few_classes(run), *(each.name for each in doubted_classes(run))}
    names = evaluated.class_names
    found = [
        (int(counts[t, p]), value, int(t), int(p))
        for (t, p), value in zip(pairs, tests, strict=True)
        if value < 1 - CONFIDENCE and counts[t, p] >= _IMAGES and not {names[t], names[p]} & explained
    ]
    if not found:
        return
    count, value, true, predicted = max(found, key=lambda each: (each[0], -each[1]))
    images = np.flatnonzero((evaluated.labels == true) & (evaluated.predicted == predicted))
    images = images[np.argsort(-evaluated.confidence[images], kind="stable")]
    back = int(counts[predicted, true])
    advice = Advice(
        "confused_pair",
        f"{names[true]!r} is taken for {names[predicted]!r} in {counted(count, 'image')} of {support[true]:,}",
        f"These are {percent(count / counts.sum())} of all errors on {evaluated.split}. The {errors[true]} errors of "
        f"{names[true]!r} spread over {classes - 1} classes by chance would be {errors[true] / (classes - 1):.1f} "
        f"({p_value(value)} after Holm's correction). The other way round: {counted(back, 'image')}.",
        "Look at these images. If one can tell them apart: add images of both classes, or a larger data.image_size; if "
        "not: merge the classes.",
        [evaluated.paths[index] for index in images],
    )
    yield Finding(advice, _GAIN * count / len(evaluated))
