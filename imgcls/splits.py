"""Which sample belongs to which split: labels by name, a stratified hold-out, and a recorded split kept."""

import logging
import sys
from collections import Counter
from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.folder import look_alikes, natural_order
from imgcls.errors import ConfigError, ImageError, listed
from imgcls.images import Pixels

log = logging.getLogger(__name__)

Labels = NDArray[np.int64]
Sample = tuple[str, str]  # content hash, class name; empty where that is not known
_Item = TypeVar("_Item", bound=Hashable)

_NEW, _MOVED, _COPIED = "new or changed", "in another class", "copied"


class Split:
    """Some rows of a dataset, with their labels as places in the class list.

    Args:
        data: The dataset.
        labels: Label of each row of the dataset, int64; None where unknown.
        rows: The rows that belong to the split; None for all.
    """

    def __init__(self, data: ImageDataset, labels: Labels | None, rows: NDArray[np.intp] | None = None) -> None:
        self.data = data
        self.rows = np.arange(len(data.samples)) if rows is None else rows
        labels = np.full(len(data.samples), -1) if labels is None else labels
        self.label_array: Labels = labels[self.rows].astype(np.int64)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def read(self, place: int) -> Pixels:
        """Return the pixels of the sample at ``place``."""
        return self.data.read(int(self.rows[place]))

    def path(self, place: int) -> str:
        """Return the id of the sample at ``place``."""
        return str(self._paths[self.rows[place]])

    def table(self) -> pd.DataFrame:
        """One row a sample: path, label."""
        return self.data.samples[["path", "label"]].iloc[self.rows]

    def empty(self) -> "Split":
        """Return a split of the same dataset without a sample."""
        return Split(self.data, None, np.array([], dtype=np.intp))

    def fingerprints(self) -> list[str]:
        """Content hash of each sample."""
        return self._fingerprints

    def label_names(self) -> list[str]:
        """Class name of each sample."""
        return self._label_names

    def first_readable(self) -> Pixels | None:
        """Return the first image that can be read, None if there is none."""
        for place in range(len(self)):
            try:
                return self.read(place)
            except ImageError:
                continue  # reported when its batch is read
        return None

    @cached_property
    def _paths(self) -> list[str]:
        return list(self.data.samples["path"])

    @cached_property
    def _label_names(self) -> list[str]:
        # one object a class, so that a checkpoint holds each name once
        return [sys.intern(str(label)) for label in self.table()["label"]]

    @cached_property
    def _fingerprints(self) -> list[str]:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(self.data.fingerprint, map(int, self.rows)))


def class_names_of(data: ImageDataset) -> list[str]:
    """Return the classes of a training set in natural order.

    Raises:
        ConfigError: If there are fewer than two, or a sample has none.
    """
    labels = _labels(data, "train")
    names = sorted({str(label) for label in labels}, key=natural_order)
    for group in look_alikes(names):
        log.warning("train: classes that differ only in case, blanks or Unicode form: %s", listed(group))
    if len(names) < 2:
        found = f"one class, {names[0]!r}" if names else "no labelled image"
        raise ConfigError(
            f"train: found {found} in {_name(data)}; a classifier needs one folder of images a class, at least two"
        )
    return names


def labels_of(data: ImageDataset, class_names: list[str], split: str) -> Labels:
    """Turn the labels of a dataset into places in the class list, by name.

    Raises:
        ConfigError: If there is no sample, or a label is not in the class list.
    """
    labels = _labels(data, split)
    places = {name: place for place, name in enumerate(class_names)}
    unknown = sorted({str(label) for label in labels} - places.keys(), key=natural_order)
    if unknown:
        raise ConfigError(f"{split}: classes {unknown[:5]} are not among those of the model, {_some(class_names)}")
    return np.array([places[str(label)] for label in labels], dtype=np.int64)


def hold_out(whole: Split, share: float, seed: int) -> dict[str, Split]:
    """Divide a split into train and validation, stratified by label.

    A class with a single sample stays in train.

    Args:
        whole: The labelled samples.
        share: Share of the samples that goes to validation, 0..1.
        seed: The same seed and samples give the same split.
    """
    counts = np.bincount(whole.label_array)
    divisible = np.flatnonzero(counts[whole.label_array] > 1)
    try:
        _, held = train_test_split(divisible, test_size=share, random_state=seed, stratify=whole.label_array[divisible])
    except ValueError as error:
        raise ConfigError(
            f"data.init_args.validation_split: {share} of {len(whole)} images in {np.count_nonzero(counts)} classes "
            f"cannot be held out ({error}); change it, or give dataset_classes.validation"
        ) from error
    return _divide(whole, held)


def repeated_hold_out(whole: Split, recorded: dict[str, list[str]], share: float, seed: int) -> dict[str, Split] | None:
    """Divide a split anew where a checkpoint recorded copies of an image on both sides.

    By content alone copies cannot be told apart, and a resumed run would train on more images than before.

    Returns:
        The splits; None if there are no such copies, or the result is not what was recorded.
    """
    if not set(recorded["train"]) & set(recorded["validation"]):
        return None
    if Counter(whole.fingerprints()) != Counter(recorded["train"] + recorded["validation"]):
        return None
    splits = hold_out(whole, share, seed)
    same = all(split.fingerprints() == recorded[name] for name, split in splits.items())
    return splits if same else None


def recorded_hold_out(whole: Split, recorded: dict[str, list[str]]) -> dict[str, Split]:
    """Divide a split as a checkpoint recorded it, by content; an image that was trained on stays in train.

    Raises:
        ConfigError: If a held-out sample of the record is gone, or nothing was held out.
    """
    if not recorded["validation"]:
        raise ConfigError(
            "validation: the checkpoint's run held no image out; give --data.dataset_classes.validation FOLDER"
        )
    fingerprints = whole.fingerprints()
    trained = set(recorded["train"])
    held_out = Counter(content for content in recorded["validation"] if content not in trained)
    lost = held_out - Counter(fingerprints)
    if lost:
        raise ConfigError(
            f"validation: {lost.total()} of the {held_out.total()} images that the checkpoint's run held out are gone "
            "or changed; give --data.dataset_classes.validation FOLDER"
        )
    return _divide(whole, _first_of(fingerprints, held_out))


def refuse_trained(split: Split, recorded: dict[str, list[str]]) -> None:
    """Refuse to validate on images that a checkpoint was trained on.

    Raises:
        ConfigError: Counts them.
    """
    trained = set(recorded["train"])
    found = sum(content in trained for content in split.fingerprints())
    if found:
        raise ConfigError(
            f"validation: the checkpoint was trained on {found} of these {len(split)} images; give others: "
            "--data.dataset_classes.validation FOLDER"
        )


def check_unchanged(whole: Split, recorded: dict[str, list[str]], labels: dict[str, list[str]] | None = None) -> None:
    """Refuse to go on with other training images, or other classes of them, than those of the checkpoint.

    Args:
        whole: The training images.
        recorded: Content hashes by split.
        labels: Class names in the order of the hashes; None where a checkpoint has none.

    Raises:
        ConfigError: If an image is new, changed, copied, gone or in another class.
    """
    found = _samples(whole.fingerprints(), whole.label_names() if labels else None)
    known = [s for name in ("train", "validation") for s in _samples(recorded[name], labels[name] if labels else None)]
    said = _differences(whole, found, known)
    gone = Counter(recorded["train"]) - Counter(whole.fingerprints())
    if any(said.values()) or gone:
        more = [f", {len(said[kind])} {kind} {said[kind][:5]}" for kind in (_MOVED, _COPIED) if said[kind]]
        raise ConfigError(
            f"train: the images are not those of the checkpoint: {len(said[_NEW])} {_NEW} {said[_NEW][:5]}, "
            f"{gone.total()} gone{''.join(more)}; restore them, or start a new run (experiment.only_weights_load: true "
            "keeps the weights)"
        )


def _samples(contents: list[str], labels: list[str] | None) -> list[Sample]:
    return list(zip(contents, labels or [""] * len(contents), strict=True))


def _differences(whole: Split, found: list[Sample], known: list[Sample]) -> dict[str, list[str]]:
    """Return the paths of samples that were not known: in what way -> paths."""
    unused = Counter(known) - Counter(found)
    moved = Counter(content for content, _ in unused.elements())
    contents = {content for content, _ in known}
    paths: dict[str, list[str]] = {_NEW: [], _MOVED: [], _COPIED: []}
    same = set(_first_of(found, Counter(known)))
    for place in sorted(set(range(len(found))) - same):
        content = found[place][0]
        kind = _MOVED if moved[content] > 0 else _COPIED if content in contents else _NEW
        moved[content] -= 1
        paths[kind].append(whole.path(place))
    return paths


def _first_of(items: list[_Item], wanted: Counter[_Item]) -> list[int]:
    """Return the places of the items that are wanted, the first ones where there are more."""
    left = wanted.copy()
    places = []
    for place, item in enumerate(items):
        if left[item] > 0:
            left[item] -= 1
            places.append(place)
    return places


def _divide(whole: Split, held: Iterable[int]) -> dict[str, Split]:
    is_held = np.zeros(len(whole), dtype=bool)
    is_held[np.asarray(list(held), dtype=np.intp)] = True
    labels = np.full(len(whole.data.samples), -1)
    labels[whole.rows] = whole.label_array
    return {
        "train": Split(whole.data, labels, whole.rows[~is_held]),
        "validation": Split(whole.data, labels, whole.rows[is_held]),
    }


def _labels(data: ImageDataset, split: str) -> pd.Series:
    samples = data.samples
    if missing := {"path", "label"} - set(samples.columns):
        raise ConfigError(f"{split}: the samples of {_name(data)} have no column {sorted(missing)[0]!r}")
    if samples["path"].duplicated().any():
        twice = samples["path"][samples["path"].duplicated()].iloc[0]
        raise ConfigError(f"{split}: {_name(data)} lists {twice!r} twice; 'path' must be unique")
    refuse_empty(data, split)
    if samples["label"].isna().any():
        path = samples["path"][samples["label"].isna()].iloc[0]
        raise ConfigError(f"{split}: {path!r} has no label; put the images into one folder a class")
    return samples["label"]


def refuse_empty(data: ImageDataset, split: str) -> None:
    """Refuse a dataset without samples, and say by which rules its files were left out.

    Raises:
        ConfigError: If there is no sample.
    """
    if data.samples.empty:
        rules = Counter(data.ignored.values())
        left_out = "; ".join(f"{count} left out: {rule}" for rule, count in rules.items())
        raise ConfigError(f"{split}: no image in {_name(data)}{f' ({left_out})' if left_out else ''}")


def _name(data: ImageDataset) -> str:
    return str(data)


def _some(names: list[str]) -> str:
    return f"{names[:10]}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
