"""What was found: copies, classes, sizes; as plain values, for the report, the gallery and machines."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from imgcls.check import near_duplicates as near
from imgcls.check.inputs import LABELLED, SPLITS, Item, Source
from imgcls.check.scan import Crew, Look, apply, read_square
from imgcls.datasets.folder import natural_order
from imgcls.datasets.labels import names_in

Fault = Literal["leakage", "unreadable"]
LONG = 3.0  # times the shorter side, from which an image counts as oddly long


@dataclass
class Copies:
    """A group of images that are the same.

    Args:
        kind: ``bytes`` (the same file), ``pixels`` (the same image in another file) or ``near``.
        difference: How much two of them differ at most, 0..1.
        items: The images, in the order of the splits.
    """

    kind: Literal["bytes", "pixels", "near"]
    difference: float
    items: list[Item]

    @property
    def leak(self) -> bool:
        """Whether they lie in several of train, validation and test."""
        return len({item.split for item in self.items} & set(LABELLED)) > 1

    @property
    def two_labels(self) -> bool:
        """Whether they carry different labels, or sets of labels."""
        return len({item.label for item in self.items} - {None}) > 1


@dataclass
class Findings:
    """All that was found.

    Args:
        source: The images, and the files that are none.
        looks: What was seen of each image.
        copies: Exact duplicates first; of either kind those that matter most first.
    """

    source: Source
    looks: list[Look]
    copies: list[Copies] = field(default_factory=list)

    @property
    def unreadable(self) -> list[tuple[Item, str]]:
        """The images that cannot be read, with the reason."""
        return [(item, look.reason) for item, look in zip(self.source.items, self.looks, strict=True) if look.reason]

    @property
    def readable(self) -> list[tuple[Item, Look]]:
        """The images that can be read."""
        return [(item, look) for item, look in zip(self.source.items, self.looks, strict=True) if not look.reason]

    @property
    def exact(self) -> list[Copies]:
        """Exact duplicates."""
        return [group for group in self.copies if group.kind != "near"]

    @property
    def near(self) -> list[Copies]:
        """Near duplicates."""
        return [group for group in self.copies if group.kind == "near"]

    @property
    def splits(self) -> dict[str, int]:
        """Number of images by split."""
        counts = Counter(item.split for item in self.source.items)
        return {split: counts[split] for split in SPLITS if split in counts}

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Number of images by split and class, in natural order; splits without labels are left out.

        An image of several labels counts for each.
        """
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for item in self.source.items:
            if item.label is not None:
                counts[item.split].update(names_in(item.label))
        return {
            split: {name: counts[split][name] for name in sorted(counts[split], key=natural_order)}
            for split in SPLITS
            if counts.get(split)
        }

    @property
    def of_no_class(self) -> dict[str, int]:
        """Number of images by split whose labels are known to be none."""
        return dict(Counter(item.split for item in self.source.items if item.label == ()))

    @property
    def imbalance(self) -> dict[str, float]:
        """Largest class : smallest class, by split."""
        return {split: max(found.values()) / min(found.values()) for split, found in self.classes.items()}

    @property
    def missing(self) -> dict[str, list[str]]:
        """Classes of train that validation or test lack."""
        return self._beside_train(lacking=True)

    @property
    def unknown(self) -> dict[str, list[str]]:
        """Classes of validation or test that train lacks."""
        return self._beside_train(lacking=False)

    def _beside_train(self, lacking: bool) -> dict[str, list[str]]:
        classes = self.classes
        known = classes.get("train")
        if known is None:
            return {}
        found: dict[str, list[str]] = {}
        for split in LABELLED[1:]:
            more, less = (known, classes.get(split)) if lacking else (classes.get(split), known)
            names = [name for name in more or {} if less is not None and name not in less]
            found |= {split: names} if names else {}
        return found

    @property
    def sizes(self) -> dict[str, dict[str, float]]:
        """Smallest, median and largest width and height, in pixels, and width : height."""
        if not self.readable:
            return {}
        looks = [look for _, look in self.readable]
        values: dict[str, list[float]] = {
            "width": [look.width for look in looks],
            "height": [look.height for look in looks],
            "aspect_ratio": [round(look.width / look.height, 4) for look in looks],
        }
        return {
            name: {"min": min(found), "median": statistics.median(found), "max": max(found)}
            for name, found in values.items()
        }

    @property
    def long(self) -> list[tuple[Item, Look]]:
        """Images whose longer side is many times the shorter, the longest first."""
        found = [(item, look) for item, look in self.readable if _length(look) > LONG]
        return sorted(found, key=lambda pair: -_length(pair[1]))

    @property
    def tiny(self) -> list[tuple[Item, Look]]:
        """Images too small to be compared with others."""
        return [(item, look) for item, look in self.readable if look.tiny]

    @property
    def even(self) -> list[tuple[Item, Look]]:
        """Images of nearly one shade, too even to be compared with others."""
        return [(item, look) for item, look in self.readable if look.views is None and not look.tiny]

    @property
    def faults(self) -> dict[Fault, int]:
        """What ends the command with an error: kind -> number of cases."""
        counts: dict[Fault, int] = {
            "unreadable": len(self.unreadable),
            "leakage": sum(group.leak for group in self.copies),
        }
        return {name: count for name, count in counts.items() if count}

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the keys that the README documents."""
        return {
            "images": len(self.source.items),
            "splits": self.splits,
            "faults": self.faults,
            "unreadable": [_plain(item) | {"reason": reason} for item, reason in self.unreadable],
            "exact_duplicates": [_plain_copies(group) for group in self.exact],
            "near_duplicates": [_plain_copies(group) for group in self.near],
            "classes": self.classes,
            "imbalance": {split: round(ratio, 4) for split, ratio in self.imbalance.items()},
            "missing_classes": self.missing,
            "unknown_classes": self.unknown,
            "empty_classes": self.source.empty,
            "of_no_class": self.of_no_class,
            "sizes": self.sizes,
            "long": [_plain_size(item, look) for item, look in self.long],
            "tiny": [_plain_size(item, look) for item, look in self.tiny],
            "even": [_plain_size(item, look) for item, look in self.even],
            "ignored": [{"path": path, "reason": rule} for path, rule in self.source.ignored.items()],
        }


def find_copies(items: Sequence[Item], looks: Sequence[Look], crew: Crew) -> list[Copies]:
    """Return the groups of exact and near duplicates.

    Args:
        items: The images.
        looks: What was seen of each.
        crew: Processes that read images.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for place, look in enumerate(looks):
        if not look.reason:
            same[look.pixels].append(place)
    exact = [_exact(items, looks, places) for places in same.values() if len(places) > 1]
    # one of each group stands for all of it
    shown = [places for places in same.values() if looks[places[0]].views is not None]
    first = [items[places[0]] for places in shown]

    def read(wanted: list[int]) -> dict[int, near.Square]:
        squares = apply(read_square, [first[place] for place in wanted], crew, "comparing images")
        return dict(zip(wanted, squares, strict=True))

    views = np.array([looks[places[0]].views for places in shown], dtype=np.uint64).reshape(-1, len(near.VIEWS))
    alike = [
        Copies("near", group.difference, [items[place] for member in group.members for place in shown[member]])
        for group in near.search(views, read)
    ]
    return [*sorted(exact, key=_least_important), *sorted(alike, key=_least_important)]


def _exact(items: Sequence[Item], looks: Sequence[Look], places: list[int]) -> Copies:
    one_file = len({looks[place].file for place in places}) == 1
    return Copies("bytes" if one_file else "pixels", 0.0, [items[place] for place in places])


def _least_important(group: Copies) -> tuple[bool, bool]:
    return not group.leak, not group.two_labels


def _length(look: Look) -> float:
    return max(look.width, look.height) / min(look.width, look.height)


def _plain(item: Item) -> dict[str, Any]:
    return {"path": item.path, "split": item.split, "label": item.label}


def _plain_size(item: Item, look: Look) -> dict[str, Any]:
    return _plain(item) | {"width": look.width, "height": look.height}


def _plain_copies(group: Copies) -> dict[str, Any]:
    of_kind = {"difference": round(group.difference, 4)} if group.kind == "near" else {"kind": group.kind}
    images = [_plain(item) for item in group.items]
    return of_kind | {"leak": group.leak, "two_labels": group.two_labels, "images": images}
