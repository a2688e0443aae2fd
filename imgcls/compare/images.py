"""The images that all runs were evaluated on, in one order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.checkpoints.run_folder import EVALUATED
from imgcls.errors import ConfigError
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.statistics.weighted import Floats, Labels

Key = tuple[str, int]
"""Path or content of an image, and how many images before it have the same."""


@dataclass(frozen=True)
class CommonImages:
    """The images that all runs were evaluated on.

    Args:
        split: ``test`` or ``validation``.
        class_names: The classes, in the order of the first run.
        labels: ``(N,)`` classes; multi-label bool ``(N, C)``.
        predicted: The predictions of each run, in the form of the labels.
        probs: The probabilities of each run, ``(N, C)``.
        others: Of each run, the number of images that not all runs have.
        by: ``content`` or ``path``: how the images were matched.
        chose_epoch: Whether these images also chose the best epoch of a run.
    """

    split: str
    class_names: list[str]
    labels: Labels
    predicted: list[Labels]
    probs: list[Floats]
    others: list[int]
    by: str
    chose_epoch: bool

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def common_images(runs: Sequence[Run]) -> CommonImages:
    """Match the images of runs: by content where ``splits.csv`` has it for all of them, else by path.

    Raises:
        ConfigError: If the runs have no split or image in common, other classes, or another label for an image.
    """
    split = _common_split(runs)
    found = [evaluated for run in runs if (evaluated := run.evaluation(split)) is not None]
    names = found[0].class_names
    for run, each in zip(runs, found, strict=True):
        _check_classes(runs[0], found[0], run, each)
    by, keys = _keys(runs, found)
    shared = [key for key in keys[0] if all(key in each for each in keys)]
    if not shared:
        raise ConfigError(f"{_apart(runs, keys)} have no {split} image in common (matched by {by})")
    rows = [np.array([each[key] for key in shared]) for each in keys]
    columns = [[each.class_names.index(name) for name in names] for each in found]
    labels = [_ordered(each.labels, row, column) for each, row, column in zip(found, rows, columns, strict=True)]
    _check_labels(runs, [found[0].paths[row] for row in rows[0]], labels, names)
    return CommonImages(
        split,
        names,
        labels[0],
        [_ordered(each.predicted, row, column) for each, row, column in zip(found, rows, columns, strict=True)],
        [each.probs[row][:, column] for each, row, column in zip(found, rows, columns, strict=True)],
        [len(each) - len(shared) for each in found],
        by,
        any(each.chose_epoch for each in found),
    )


def _apart(runs: Sequence[Run], keys: Sequence[dict[Key, int]]) -> str:
    """Return the names of two runs without a common image; of all where each two of them have some."""
    pairs = (pair for pair in combinations(range(len(runs)), 2) if not keys[pair[0]].keys() & keys[pair[1]].keys())
    return " and ".join(str(runs[index].folder) for index in next(pairs, range(len(runs))))


def _common_split(runs: Sequence[Run]) -> str:
    """Return ``test`` if all runs have such images, else ``validation``."""
    for split in reversed(EVALUATED):
        if all(run.evaluation(split) is not None for run in runs):
            return split
    for run in runs:
        run.evaluated  # noqa: B018 - refuses a run without predictions
    without = next(run for run in runs if run.evaluation("test") is None)
    other = next(run for run in runs if run.evaluation("validation") is None)
    raise ConfigError(
        f"{without.folder} has no test_predictions.csv and {other.folder} no validation_predictions.csv, so that "
        f"they were not evaluated on the same split; type: imgcls test {without.home} FOLDER, and give the folder that "
        "it names"
    )


def _check_classes(first: Run, one: EvaluatedSplit, run: Run, other: EvaluatedSplit) -> None:
    if one.multilabel != other.multilabel:
        kinds = ["multi-label" if each.multilabel else "single-label" for each in (one, other)]
        raise ConfigError(f"{first.folder} is {kinds[0]}, but {run.folder} is {kinds[1]}")
    if odd := set(one.class_names) ^ set(other.class_names):
        raise ConfigError(f"{first.folder} and {run.folder} have other classes: only one of them has {min(odd)!r}")


def _keys(runs: Sequence[Run], found: Sequence[EvaluatedSplit]) -> tuple[str, list[dict[Key, int]]]:
    """Return how images are matched, and for each run key -> row."""
    contents = [_contents(run, each) for run, each in zip(runs, found, strict=True)]
    if all(each is not None for each in contents):
        keys = [_numbered(each or [], split) for each, split in zip(contents, found, strict=True)]
        if set(keys[0]).intersection(*keys[1:]):
            return "content", keys
    return "path", [_numbered(each.paths, each) for each in found]


def _contents(run: Run, found: EvaluatedSplit) -> list[str] | None:
    """Return the hash of each image; None if one is unknown."""
    known = run.contents(found.split)
    hashes = [known.get(path, "") for path in found.paths]
    return hashes if all(hashes) else None


def _numbered(names: Sequence[str], found: EvaluatedSplit) -> dict[Key, int]:
    """Return key -> row; copies of an image are numbered in the order of their labels, then of the table."""
    order = sorted(range(len(names)), key=lambda row: _label(found, row)) if len(set(names)) < len(names) else None
    seen: Counter[str] = Counter()
    keys: dict[Key, int] = {}
    for row in order or range(len(names)):
        keys[names[row], seen[names[row]]] = row
        seen[names[row]] += 1
    return dict(sorted(keys.items(), key=lambda item: item[1]))


def _label(found: EvaluatedSplit, row: int) -> list[str]:
    """Return the sorted classes of an image."""
    return _names(found.labels[row], found.class_names)


def _names(label: Any, class_names: Sequence[str]) -> list[str]:
    indices: list[int] = np.flatnonzero(label).tolist() if np.ndim(label) else [int(label)]
    return sorted(class_names[index] for index in indices)


def _ordered(labels: Labels, rows: NDArray[np.int64], columns: Sequence[int]) -> Labels:
    """Return labels of the matched images, with the classes of the first run."""
    if labels.ndim == 2:
        return labels[rows].astype(np.bool_)[:, columns]
    return np.argsort(columns).astype(np.int64)[labels[rows].astype(np.int64)]


def _check_labels(runs: Sequence[Run], paths: Sequence[str], labels: Sequence[Labels], names: Sequence[str]) -> None:
    """Refuse an image with another label in another run."""
    for run, other in zip(runs[1:], labels[1:], strict=True):
        differs = np.flatnonzero((labels[0] != other).reshape(len(paths), -1).any(axis=1)).tolist()
        if differs:
            one, two = (", ".join(_names(each[differs[0]], names)) or "no class" for each in (labels[0], other))
            more = f" ({len(differs)} images differ)" if len(differs) > 1 else ""
            raise ConfigError(
                f"{paths[differs[0]]}: has the label {one!r} in {runs[0].folder}, but {two!r} in {run.folder}{more}"
            )
