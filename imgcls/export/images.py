"""The images that an exported model is compared on and calibrated with: those of its run, or sample photos."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image

from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.datasets.image_paths import find_images
from imgcls.datasets.labels import names_in
from imgcls.errors import ConfigError
from imgcls.inference.classifier import Classifier
from imgcls.results.run import read_run

SPLITS = {"test": "test", "validation": "validation", "train": "training"}
"""Splits in the order of preference for an evaluation -> their names in messages."""

_MOST = 64  # images to compare on; differences between programs show on the first few


class Labelled(NamedTuple):
    """An image file, and the names of its classes; None if they are unknown."""

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
    splits = None if run is None else read_run(run).splits
    return set() if splits is None else set(splits["path"][splits["split"] == "validation"])


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


def evenly_spread(images: list[Labelled], most: int) -> list[Labelled]:
    """Return at most so many of the images, evenly spread."""
    return [images[index] for index in np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)]


@contextmanager
def images_to_compare(classifier: Classifier, given: Sequence[str]) -> Iterator[tuple[list[str], list[str], str]]:
    """Yield image files, their names in messages, and in words what they are.

    These are the given files, else up to 64 files of the run's test or validation images, or of those to train on,
    evenly spread, else sample photos of scikit-learn in several sizes, which are removed afterwards.

    Args:
        classifier: The classifier, with the datasets of its run.
        given: Files, folders and CSV files; may be empty.

    Raises:
        ConfigError: If a given path does not exist.
    """
    if given:
        paths = find_images(list(given))
        yield paths, paths, "given images"
        return
    for split, name in SPLITS.items():
        if images := images_of(classifier, split):
            paths = [each.path for each in evenly_spread(images, _MOST)]
            yield paths, paths, f"{name} images of the run"
            return
    with TemporaryDirectory() as folder:
        paths = write_sample_photos(Path(folder))
        yield paths, [os.path.basename(path) for path in paths], "images made of scikit-learn's sample photos"


def write_sample_photos(folder: Path) -> list[str]:
    """Write the sample photos in several sizes: as they are, portrait, grey, narrow, small; return the paths."""
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    photos = {
        "china.jpg": china,
        "flower.jpg": flower,
        "portrait.jpg": flower.crop((100, 0, 340, 427)),
        "grey.jpg": china.convert("L"),
        "narrow.png": china.crop((0, 150, 640, 310)),
        "small.png": flower.crop((250, 150, 297, 181)),
        "square.png": china.crop((0, 0, 256, 256)),
        "odd.png": flower.resize((301, 260)),
    }
    for name, photo in photos.items():
        photo.save(folder / name)
    return [str(folder / name) for name in photos]
