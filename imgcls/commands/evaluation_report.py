"""What an evaluation reports beside its metrics: the scores of each class, and the most confused pairs."""

from collections.abc import Mapping
from typing import Any

from imgcls.metrics.class_counts import ClassCounts, ClassScores, Confusion
from imgcls.runtime.tables import print_table, printable

_ALL = 15  # classes that are all shown
_WORST = 10  # of more classes
_PAIRS = 5
_NAME = 30  # characters of a class name, so that the table fits into 80 columns


def print_classes(split: str, counts: ClassCounts) -> None:
    """Print precision, recall, F1 and support of each class of a split, and the most confused pairs."""
    scores = counts.scores()
    print()
    if len(scores) > _ALL:
        present = [each for each in scores if each.support]
        print(f"The {min(_WORST, len(present))} of {len(scores)} classes with the lowest F1:")
        scores = sorted(present, key=lambda each: each.f1_score or 0.0)[:_WORST]
    print_table([[f"class ({split})", "precision", "recall", "f1_score", "support"], *map(_cells, scores)])
    confused = counts.most_confused(_PAIRS)
    if confused:
        print(printable("Most confused (true → predicted):"))
    for pair in confused:
        names = f"{_shortened(pair.true)} → {_shortened(pair.predicted)}"
        print(printable(f"  {names}: {pair.images} of {pair.support} images"))


def class_details(counts: Mapping[str, ClassCounts | None]) -> dict[str, Any]:
    """Return what result files say of the classes: images, scores of each class and confused pairs, by split.

    The counts of a split are None if they are unknown.
    """
    known = {split: found for split, found in counts.items() if found is not None}
    confused = {split: found.most_confused() for split, found in known.items()}
    return {
        "images": {split: found.images for split, found in known.items()},
        "classes": {split: dict(map(_named, found.scores())) for split, found in known.items()},
        "confused": {split: [_pair(each) for each in pairs] for split, pairs in confused.items()},
    }


def _named(scores: ClassScores) -> tuple[str, dict[str, float | None]]:
    values = scores._asdict()
    return values.pop("name"), values


def _pair(found: Confusion) -> dict[str, str | int]:
    return {"true": found.true, "predicted": found.predicted, "images": found.images}


def _cells(scores: ClassScores) -> list[str]:
    values = (scores.precision, scores.recall, scores.f1_score)
    return [
        _shortened(scores.name),
        *("-" if value is None else f"{value:.4f}" for value in values),
        f"{scores.support}",
    ]


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
