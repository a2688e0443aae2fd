"""What the check finds: copies, classes, sizes; as plain values, for the text, the page and the JSON file."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from imgcls.check.image_alignment import Square
from imgcls.check.inputs import LABELLED, SPLITS, CheckedImage, Source
from imgcls.check.near_duplicates import CROPS, search
from imgcls.check.scan import ScannedImage, Workers, map_images, read_square
from imgcls.datasets.labels import names_in, natural_order

Fault = Literal["leakage", "unreadable"]
Scanned = tuple[CheckedImage, ScannedImage]
LONG = 3.0  # longer side / shorter side, from which an image is reported as long


@dataclass
class Copies:
    """A group of copies.

    Args:
        kind: ``bytes`` (the same file), ``pixels`` (the same image in another file) or ``near``.
        difference: The largest difference of two of them, 0..1.
        images: The images, in the order of the splits.
    """

    kind: Literal["bytes", "pixels", "near"]
    difference: float
    images: list[CheckedImage]

    @property
    def leak(self) -> bool:
        """Whether they are in several of train, validation and test."""
        return len({image.split for image in self.images} & set(LABELLED)) > 1

    @property
    def two_labels(self) -> bool:
        """Whether they have different labels, or sets of labels."""
        return len({image.label for image in self.images} - {None}) > 1


@dataclass
class Findings:
    """All findings.

    Args:
        source: The images, and the files that are not images.
        scanned: The scan result of each image.
        copies: Exact duplicates, then near duplicates; leaks and groups with two labels first.
    """

    source: Source
    scanned: list[ScannedImage]
    copies: list[Copies] = field(default_factory=list)

    @property
    def unreadable(self) -> list[tuple[CheckedImage, str]]:
        """The images that cannot be read, with the reason."""
        pairs = zip(self.source.images, self.scanned, strict=True)
        return [(image, scan.reason) for image, scan in pairs if scan.reason]

    @property
    def readable(self) -> list[Scanned]:
        """The images that can be read."""
        return [pair for pair in zip(self.source.images, self.scanned, strict=True) if not pair[1].reason]

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
        counts = Counter(image.split for image in self.source.images)
        return {split: counts[split] for split in SPLITS if split in counts}

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Number of images by split and class, in natural order; without unlabelled splits.

        A multi-label image counts for each of its labels.
        """
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for image in self.source.images:
            if image.label is not None:
                counts[image.split].update(names_in(image.label))
        return {
            split: {name: counts[split][name] for name in sorted(counts[split], key=natural_order)}
            for split in SPLITS
            if counts.get(split)
        }

    @property
    def of_no_class(self) -> dict[str, int]:
        """Number of images by split to which no class applies."""
        return dict(Counter(image.split for image in self.source.images if image.label == ()))

    @property
    def imbalance(self) -> dict[str, float]:
        """Size of the largest class / size of the smallest class, by split."""
        return {split: max(found.values()) / min(found.values()) for split, found in self.classes.items()}

    @property
    def missing(self) -> dict[str, list[str]]:
        """Classes of train that validation or test lack."""
        return self._compare_with_train(missing=True)

    @property
    def unknown(self) -> dict[str, list[str]]:
        """Classes of validation or test that train lacks."""
        return self._compare_with_train(missing=False)

    def _compare_with_train(self, missing: bool) -> dict[str, list[str]]:
        classes = self.classes
        train = classes.get("train")
        found: dict[str, list[str]] = {}
        for split in LABELLED[1:] if train is not None else ():
            more, less = (train, classes.get(split)) if missing else (classes.get(split), train)
            names = [name for name in more or {} if less is not None and name not in less]
            found |= {split: names} if names else {}
        return found

    @property
    def sizes(self) -> dict[str, dict[str, float]]:
        """Smallest, median and largest width and height, in pixels, and width / height."""
        scans = [scan for _, scan in self.readable]
        values: dict[str, list[float]] = {
            "width": [scan.width for scan in scans],
            "height": [scan.height for scan in scans],
            "aspect_ratio": [round(scan.width / scan.height, 4) for scan in scans],
        }
        return {
            name: {"min": min(found), "median": statistics.median(found), "max": max(found)}
            for name, found in values.items()
            if found
        }

    @property
    def long(self) -> list[Scanned]:
        """Images whose longer side is many times the shorter, the longest first."""
        found = [(image, scan) for image, scan in self.readable if _elongation(scan) > LONG]
        return sorted(found, key=lambda pair: -_elongation(pair[1]))

    @property
    def tiny(self) -> list[Scanned]:
        """Images too small to be compared."""
        return [(image, scan) for image, scan in self.readable if scan.tiny]

    @property
    def even(self) -> list[Scanned]:
        """Images of nearly one shade, too flat to be compared."""
        return [(image, scan) for image, scan in self.readable if scan.hashes is None and not scan.tiny]

    @property
    def faults(self) -> dict[Fault, int]:
        """Findings that end the command with an error: kind -> number of cases."""
        counts: dict[Fault, int] = {
            "unreadable": len(self.unreadable),
            "leakage": sum(group.leak for group in self.copies),
        }
        return {name: count for name, count in counts.items() if count}

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the keys that docs/formats.md documents."""
        return {
            "images": len(self.source.images),
            "splits": self.splits,
            "faults": self.faults,
            "unreadable": [_image_json(image) | {"reason": reason} for image, reason in self.unreadable],
            "exact_duplicates": [_copies_json(group) for group in self.exact],
            "near_duplicates": [_copies_json(group) for group in self.near],
            "classes": self.classes,
            "imbalance": {split: round(ratio, 4) for split, ratio in self.imbalance.items()},
            "missing_classes": self.missing,
            "unknown_classes": self.unknown,
            "empty_classes": self.source.empty,
            "of_no_class": self.of_no_class,
            "sizes": self.sizes,
            "long": [_size_json(*pair) for pair in self.long],
            "tiny": [_size_json(*pair) for pair in self.tiny],
            "even": [_size_json(*pair) for pair in self.even],
            "ignored": [{"path": path, "reason": rule} for path, rule in self.source.ignored.items()],
        }


def find_copies(images: Sequence[CheckedImage], scanned: Sequence[ScannedImage], workers: Workers) -> list[Copies]:
    """Return the groups of exact and near duplicates among images with their scan results."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, scan in enumerate(scanned):
        if not scan.reason:
            same[scan.pixels].append(index)
    exact = [_exact(images, scanned, indices) for indices in same.values() if len(indices) > 1]
    # near duplicates are searched among one image of each group of exact ones
    distinct = [indices for indices in same.values() if scanned[indices[0]].hashes is not None]
    first = [images[indices[0]] for indices in distinct]

    def read(wanted: list[int]) -> dict[int, Square]:
        squares = map_images(read_square, [first[index] for index in wanted], workers, "comparing images")
        return dict(zip(wanted, squares, strict=True))

    hashes = np.array([scanned[indices[0]].hashes for indices in distinct], dtype=np.uint64).reshape(-1, len(CROPS))
    near = [
        Copies("near", group.difference, [images[index] for member in group.members for index in distinct[member]])
        for group in search(hashes, read)
    ]
    return [*sorted(exact, key=_least_important), *sorted(near, key=_least_important)]


def _exact(images: Sequence[CheckedImage], scanned: Sequence[ScannedImage], indices: list[int]) -> Copies:
    one_file = len({scanned[index].file for index in indices}) == 1
    return Copies("bytes" if one_file else "pixels", 0.0, [images[index] for index in indices])


def _least_important(group: Copies) -> tuple[bool, bool]:
    return not group.leak, not group.two_labels


def _elongation(scan: ScannedImage) -> float:
    return max(scan.width, scan.height) / min(scan.width, scan.height)


def _image_json(image: CheckedImage) -> dict[str, Any]:
    return {"path": image.path, "split": image.split, "label": image.label}


def _size_json(image: CheckedImage, scan: ScannedImage) -> dict[str, Any]:
    return _image_json(image) | {"width": scan.width, "height": scan.height}


def _copies_json(group: Copies) -> dict[str, Any]:
    of_kind = {"difference": round(group.difference, 4)} if group.kind == "near" else {"kind": group.kind}
    images = [_image_json(image) for image in group.images]
    return of_kind | {"leak": group.leak, "two_labels": group.two_labels, "images": images}
