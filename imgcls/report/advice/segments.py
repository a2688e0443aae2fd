"""Weak segments: images of one kind, such as dark ones, in which errors are more frequent."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.report.advice.finding import CONFIDENCE, Advice, Finding, p_value, percent
from imgcls.report.advice.properties import WORDS, properties_of
from imgcls.results.run import Run
from imgcls.statistics.paired import holm

_IMAGES = 10  # in a segment
_QUARTERS = (("below", 0.25), ("above", 0.75))


class _Segment(NamedTuple):
    name: str  # of the property
    text: str  # "is below 41.2"
    inside: NDArray[np.bool_]


def weak_segments(run: Run) -> Iterator[Finding]:
    """Find the segment of the evaluated images with the most errors beyond those expected elsewhere.

    Segments are the lowest and the highest quarter of each property, and each file type. Errors inside and outside are
    compared by Fisher's exact test, one-sided, with Holm's correction for the number of segments.
    """
    from scipy.stats import fisher_exact  # takes half a second

    evaluated = run.evaluated
    table = properties_of(run, evaluated.split)
    if table is None:
        return
    wrong = pd.Series(~evaluated.correct, index=pd.Index(evaluated.paths, dtype=object))
    wrong = wrong[~wrong.index.duplicated()].reindex(table.index).dropna().astype(bool)
    table = table.loc[wrong.index]
    errors = wrong.to_numpy()
    segments = [each for name in table for each in _segments(table[name]) if each.inside.sum() >= _IMAGES]
    tests = [fisher_exact(_counts(errors, each.inside), alternative="greater").pvalue for each in segments]
    found = [(_excess(errors, each.inside), p, each) for each, p in zip(segments, holm(tests), strict=True)]
    found = [each for each in found if each[1] < 1 - CONFIDENCE]
    if found:
        gain, p, best = max(found, key=lambda each: each[0])
        paths = table.index[best.inside & errors].tolist()
        yield Finding(_advice(best, errors, p, len(segments), paths), gain, urgency=3)


def _segments(values: "pd.Series[float]") -> list[_Segment]:
    name = str(values.name)
    if name == "format":
        return [_Segment(name, f"is {each}", (values == each).to_numpy()) for each in values.dropna().unique()]
    quarters = []
    for word, share in _QUARTERS:
        edge = float(values.quantile(share))
        inside = values < edge if word == "below" else values > edge
        quarters.append(_Segment(name, f"is {word} {edge:.4g}", inside.to_numpy()))
    return quarters


def _counts(errors: NDArray[np.bool_], inside: NDArray[np.bool_]) -> list[list[int]]:
    return [[int((errors & part).sum()), int((~errors & part).sum())] for part in (inside, ~inside)]


def _excess(errors: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """Return the share of all images that are errors inside beyond the rate outside."""
    return float((errors[inside].mean() - errors[~inside].mean()) * inside.mean()) if (~inside).any() else 0.0


def _advice(segment: _Segment, errors: NDArray[np.bool_], p: float, tests: int, paths: list[str]) -> Advice:
    word, inside = WORDS[segment.name], segment.inside
    return Advice(
        "weak_segment",
        f"Errors are more frequent where {word} {segment.text}",
        f"Wrong are {percent(errors[inside].mean())} of these {inside.sum():,} images and "
        f"{percent(errors[~inside].mean())} of the others (Fisher's exact test: {p_value(p)} after Holm's correction "
        f"for {tests} segments).",
        f"Look at these errors. If the images are needed: add images like them to train, or an augmentation that "
        f"changes {word}.",
        paths,
    )
