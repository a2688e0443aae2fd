"""The images on which an exported model is compared, where the user names none."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from imgcls.datasets.image_paths import find_images
from imgcls.export.run_images import SPLITS, images_of
from imgcls.inference.classifier import Classifier

MOST = 64  # images of the run; differences between programs show on the first few


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
        if paths := [each.path for each in images_of(classifier, split)]:
            chosen = np.linspace(0, len(paths) - 1, min(MOST, len(paths))).round().astype(int)
            kept = [paths[number] for number in chosen]
            yield kept, kept, f"{name} images of the run"
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
