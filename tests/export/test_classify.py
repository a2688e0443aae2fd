"""classify.py reads files as imgcls does: every pixel of the corpus of odd files."""

import json
from pathlib import Path

import numpy as np
import pytest

from imgcls.export.classify import _DAMAGED, Model, load_image
from imgcls.images import Pixels
from imgcls.images import load_image as load
from imgcls.predictions.predicted_texts import predicted_texts
from tests.helpers.corpus import write_corpus

# read by imgcls with libjpeg, while Pillow refuses a broken segment that has nothing to do with the pixels
REFUSED = {"broken-photoshop.jpg", "short-jfif.jpg"}


def pixels_of(path: str) -> Pixels | str:
    """The pixels of a file, or why it cannot be read."""
    try:
        return load_image(path)
    except _DAMAGED as error:
        return f"{path}: {error}"


def test_pixels_of_the_corpus_equal_those_of_imgcls(tmp_path: Path) -> None:
    equal, accepted = 0, []
    for case in write_corpus(tmp_path / "corpus"):
        path = str(case.path)
        found = pixels_of(path)
        if case.expected.good and case.path.name not in REFUSED:
            assert np.array_equal(found, load(path)), (path, found)
            equal += 1
        elif isinstance(found, np.ndarray):
            accepted.append(case.path.name)
    assert equal > 300
    # Pillow makes up the pixels that are missing in a JPEG or a PNG; imgcls looks for that
    made_up = ("hollow", "many-scans", "few-rows", "checksum-IEND", "locked")  # root may read what is locked
    assert [name for name in accepted if not name.startswith(made_up)] == []


class Described(Model):
    """A model with given names, without a file."""

    def __init__(self, class_names: list[str], thresholds: list[float] | None) -> None:
        texts = {"class_names": class_names, "thresholds": thresholds, "image_size": [8, 8]}
        self._describe({key: json.dumps(value) for key, value in texts.items()}, batched=False)


@pytest.mark.parametrize("thresholds", [None, [0.5, 0.5, 0.25], [0.1, 0.1, 0.1], [1.0, 1.0, 1.0]])
@pytest.mark.parametrize("names", [["cat", "dog", "owl"], ["b", "a", "c;d"], ["[b", " a", "c"], ["2", "10", "1"]])
def test_answers_are_those_of_predictions_csv(names: list[str], thresholds: list[float] | None) -> None:
    import torch

    model = Described(names, thresholds)
    for row in np.random.default_rng(0).random((20, 3), dtype=np.float32):
        [expected] = predicted_texts(torch.from_numpy(row[None]), [""], names, thresholds)
        assert model.answer(row) == (expected.prediction, expected.probability)
