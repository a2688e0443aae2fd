"""The images of a classifier's run that are still on this machine, by split."""

import os
from typing import NamedTuple

import pandas as pd

from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.datasets.labels import names_in
from imgcls.errors import ConfigError
from imgcls.inference.classifier import Classifier

SPLITS = {"test": "test", "validation": "validation", "train": "training"}
"""Splits in the order of preference for an evaluation -> their names in messages."""

_SPLITS_FILE = "splits.csv"  # of a run folder


class Labelled(NamedTuple):
    """An image file.

    Args:
        path: The file.
        classes: Names of its classes; None if they are unknown.
    """

    path: str
    classes: frozenset[str] | None


def images_of(classifier: Classifier, split: str) -> list[Labelled]:
    """Return the image files of a split that are on this machine.

    Validation images that were held out of train are known from the run folder; without it they count as training.

    Args:
        classifier: The classifier, with the datasets of its run.
        split: ``train``, ``validation`` or ``test``.
    """
    has_own = "validation" in classifier.datasets
    if has_own or split == "test":
        return _files_of(classifier, split)
    held_out = _held_out(classifier)
    return [each for each in _files_of(classifier, "train") if (each.path in held_out) == (split == "validation")]


def _held_out(classifier: Classifier) -> set[str]:
    """Return the paths of the validation images that the run took from train."""
    run = run_folder_of(classifier.path)
    try:
        table = pd.read_csv((run or classifier.path) / _SPLITS_FILE, dtype=str, keep_default_na=False)
        return set(table["path"][table["split"] == "validation"])
    except (OSError, ValueError, KeyError):  # no run folder, or the file was edited
        return set()


def _files_of(classifier: Classifier, split: str) -> list[Labelled]:
    data = classifier.datasets.get(split)
    try:
        if data is None or not data.holds_files:
            return []
        labels = data.samples["label"] if "label" in data.samples else [None] * len(data.samples)
        return [
            Labelled(path, None if label is None else frozenset(names_in(label)))
            for path, label in zip(data.sample_paths, labels, strict=True)
            if os.path.isfile(path)
        ]
    except (ConfigError, OSError):  # the folder is not on this machine
        return []
