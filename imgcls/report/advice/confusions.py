"""Pairs of classes that are confused more often than chance would have it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.report.advice.class_counts import few_classes, images_of_split
from imgcls.report.advice.finding import CONFIDENCE, Advice, Finding, fit_again, p_value, percent
from imgcls.report.advice.label_errors import suspected_errors
from imgcls.report.confusion import confusion
from imgcls.results.run import Run
from imgcls.runtime.tables import counted
from imgcls.statistics.paired import holm

_IMAGES = 3
_FEWER = 0.8  # training images of the misclassified class, relative to the other one
_GAIN = 0.5  # of the errors of a pair that better images or labels may avoid


class _Pair(NamedTuple):
    true: int
    predicted: int
    images: int
    p: float


def confused_pair(run: Run) -> Iterator[Finding]:
    """Find the pair, true and predicted, that has the most errors, if they are more than chance has it.

    By chance the errors of a class are spread over all other classes alike (binomial test with Holm's correction).
    With two classes, both are misclassified equally often (Fisher's exact test). Classes with few images and those
    with suspected label errors have findings of their own.
    """
    evaluated = run.evaluated
    if evaluated.multilabel or len(evaluated.class_names) < 2:
        return
    counts = confusion(evaluated)
    pairs = _of_two(counts) if len(counts) == 2 else _of_many(counts)
    names = evaluated.class_names
    explained = {*few_classes(run), *(each.name for each in suspected_errors(run))}
    found = [
        pair
        for pair in pairs
        if pair.p < 1 - CONFIDENCE
        and pair.images >= _IMAGES
        and not {names[pair.true], names[pair.predicted]} & explained
    ]
    if found:
        worst = max(found, key=lambda pair: (pair.images, -pair.p))
        yield Finding(_advice(run, worst, counts), _GAIN * worst.images / len(evaluated), urgency=3)


def _of_two(counts: NDArray[np.int64]) -> list[_Pair]:
    """Return the class that is misclassified more often than the other one."""
    from scipy.stats import fisher_exact  # takes half a second

    error_rates = counts[::-1].diagonal()[::-1] / np.maximum(counts.sum(axis=1), 1)
    true = int(error_rates.argmax())
    p = float(fisher_exact([counts[0], counts[1][::-1]]).pvalue)
    return [_Pair(true, 1 - true, int(counts[true, 1 - true]), p)]


def _of_many(counts: NDArray[np.int64]) -> list[_Pair]:
    from scipy.stats import binom  # takes half a second

    errors = counts.sum(axis=1) - counts.diagonal()
    pairs = [(int(true), int(other)) for true, other in np.argwhere(counts) if true != other]
    tests = [float(binom.sf(counts[pair] - 1, errors[pair[0]], 1 / (len(counts) - 1))) for pair in pairs]
    return [_Pair(*pair, int(counts[pair]), p) for pair, p in zip(pairs, holm(tests), strict=True)]


def _weights(run: Run, name: str, other: str) -> str:
    """Return class weights that count one class more; ``auto`` does if it has fewer training images."""
    trained = images_of_split(run, "train")
    if trained[name] < _FEWER * trained[other]:
        return "auto"
    return "'[2, 1]'" if run.evaluated.class_names[0] == name else "'[1, 2]'"


def _advice(run: Run, pair: _Pair, counts: NDArray[np.int64]) -> Advice:
    evaluated = run.evaluated
    true, predicted = (evaluated.class_names[index] for index in (pair.true, pair.predicted))
    errors = counts.sum(axis=1) - counts.diagonal()
    images = np.flatnonzero((evaluated.labels == pair.true) & (evaluated.predicted == pair.predicted))
    images = images[np.argsort(-evaluated.confidence[images], kind="stable")]
    back, support = int(counts[pair.predicted, pair.true]), counts.sum(axis=1)
    evidence = f"These are {percent(pair.images / errors.sum())} of all errors on {evaluated.split}. "
    if len(counts) == 2:
        evidence += (
            f"The other way round: {back} of {support[pair.predicted]:,} (Fisher's exact test of equal shares: "
            f"{p_value(pair.p)})."
        )
        weighted = fit_again(run, f"--model.loss_config.class_weights {_weights(run, true, predicted)}")
        action = f"If a false negative costs more than a false positive: {weighted}"
    else:
        share = errors[pair.true] / (len(counts) - 1)
        evidence += (
            f"By chance the {errors[pair.true]} errors of {true!r} would be {share:.1f} for each other class "
            f"({p_value(pair.p)} after Holm's correction). The other way round: "
            f"{counted(back, 'image')}."
        )
        action = "If one cannot distinguish them: merge the classes"
    return Advice(
        "confused_pair",
        f"{true!r} is predicted as {predicted!r} in {pair.images:,} of {counted(int(support[pair.true]), 'image')}",
        evidence,
        f"Look at these images, and add images like them to train. {action}.",
        [evaluated.paths[index] for index in images],
    )
