"""Which sample belongs to which split: labels by name, a stratified hold-out, and a recorded split kept."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from imgcls.samples import ImageDataset, natural_order

Labels = NDArray[np.int64]


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

    def fingerprints(self) -> list[str]:
        """Content hash of each sample."""
        return self._fingerprints

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


def recorded_hold_out(whole: Split, recorded: dict[str, list[str]]) -> dict[str, Split]:
    """Divide a split as a checkpoint recorded it, by content; an image that was trained on stays in train.

    Raises:
        ConfigError: If a held-out sample of the record is gone.
    """
    fingerprints = whole.fingerprints()
    held_out = set(recorded["validation"]) - set(recorded["train"])
    lost = held_out - set(fingerprints)
    if lost:
        raise ConfigError(
            f"validation: {len(lost)} of the {len(held_out)} images that the checkpoint's run held out are gone or "
            "changed; give --data.dataset_classes.validation FOLDER"
        )
    return _divide(whole, [place for place, content in enumerate(fingerprints) if content in held_out])


def check_unchanged(whole: Split, recorded: dict[str, list[str]]) -> None:
    """Refuse to go on with other training images than those of the checkpoint.

    Raises:
        ConfigError: If an image is new, changed or gone.
    """
    fingerprints = whole.fingerprints()
    known = set(recorded["train"]) | set(recorded["validation"])
    new = [whole.path(place) for place, content in enumerate(fingerprints) if content not in known]
    lost = set(recorded["train"]) - set(fingerprints)
    if new or lost:
        raise ConfigError(
            f"train: the images are not those of the checkpoint: {len(new)} new or changed {new[:5]}, {len(lost)} "
            "gone; restore them, or start a new run (experiment.only_weights_load: true keeps the weights)"
        )


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
    if samples.empty:
        raise ConfigError(f"{split}: no image in {_name(data)}")
    if samples["label"].isna().any():
        path = samples["path"][samples["label"].isna()].iloc[0]
        raise ConfigError(f"{split}: {path!r} has no label; put the images into one folder a class")
    return samples["label"]


def _name(data: ImageDataset) -> str:
    return str(getattr(data, "root", type(data).__name__))


def _some(names: list[str]) -> str:
    return f"{names[:10]}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
