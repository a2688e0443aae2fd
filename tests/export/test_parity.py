"""Parity: which differences of an exported model end an export, and what is said of them."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imgcls.errors import ConfigError, RunError
from imgcls.export.formats import Written
from imgcls.export.parity import check_parity
from imgcls.inference.classifier import Classifier
from tests.helpers.tiny_classifier import CLASSES, tiny_classifier

COLUMNS = [f"prob_{name}" for name in CLASSES]
PROGRAM = """import shutil, sys
shutil.copy(sys.argv[1], sys.argv[sys.argv.index("--output") + 1])
"""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return tiny_classifier("resnet", tmp_path_factory.mktemp("parity"))


@pytest.fixture
def photos(classifier: Classifier) -> list[str]:
    return sorted(map(str, (classifier.path.parent / "photos").iterdir()))


def answering(table: pd.DataFrame, folder: Path, tolerance: float = 1e-3) -> Written:
    """An exported model that gives the rows of a table."""
    (folder / "program.py").write_text(PROGRAM)
    table.to_csv(folder / "rows.csv", index=False)
    return Written([sys.executable, str(folder / "program.py"), str(folder / "rows.csv")], tolerance, "")


def test_same_answers(classifier: Classifier, photos: list[str], tmp_path: Path) -> None:
    parity = check_parity(classifier, answering(classifier.predict(photos), tmp_path), photos)
    assert (parity.images, parity.same_top1, parity.beyond, parity.first_beyond) == (8, 8, 0, "")
    assert parity.max_difference < 1e-7
    assert str(parity).startswith("same top-1 for 8 of 8, largest difference of a probability ")


def test_difference_beyond_the_tolerance_names_the_first_file(
    classifier: Classifier, photos: list[str], tmp_path: Path
) -> None:
    table = classifier.predict(photos)
    table.loc[[3, 5], COLUMNS] = np.roll(table.loc[[3, 5], COLUMNS].to_numpy(), 1, axis=1)
    parity = check_parity(classifier, answering(table, tmp_path), photos)
    assert (parity.beyond, parity.same_top1) == (2, 6)
    best = table.loc[3, COLUMNS].astype(float)
    answer = f"{str(best.idxmax()).removeprefix('prob_')} ({best.max():.4f})"
    assert parity.first_beyond.startswith(f"{photos[3]}: imgcls predicts ")
    assert parity.first_beyond.endswith(f"the exported model {answer}")


def test_another_class_within_the_tolerance_is_a_tie(classifier: Classifier, photos: list[str], tmp_path: Path) -> None:
    table = classifier.predict(photos)
    table.loc[2, COLUMNS] = np.roll(table.loc[2, COLUMNS].to_numpy(), 1)
    parity = check_parity(classifier, answering(table, tmp_path, tolerance=1.0), photos)
    assert (parity.beyond, parity.same_top1) == (0, 7)
    assert "7 of 8 (1 with two classes equal within the tolerance)" in str(parity)


def test_image_that_the_exported_model_cannot_read_is_beyond(
    classifier: Classifier, photos: list[str], tmp_path: Path
) -> None:
    table = classifier.predict(photos)
    table.loc[4, COLUMNS] = np.nan
    table.loc[4, "error"] = "OSError: damaged"
    parity = check_parity(classifier, answering(table, tmp_path), photos)
    assert parity.beyond == 1
    assert parity.first_beyond.startswith(photos[4])
    assert parity.first_beyond.endswith("OSError: damaged")


def test_files_that_cannot_be_compared_are_left_out(classifier: Classifier, photos: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [*photos, str(tmp_path / "broken.jpg")]
    table = classifier.predict(paths)
    table.loc[0, COLUMNS] = 0.0
    written = answering(table, tmp_path)
    otherwise = Written(written.command, 1e-3, "", reads_otherwise=lambda path: "16-bit" * (path == photos[0]))
    parity = check_parity(classifier, otherwise, paths)
    assert parity.images == 7
    assert parity.left_out == {photos[0]: "16-bit", paths[-1]: "not read by imgcls"}
    with pytest.raises(ConfigError, match=r"none of 1 images can be compared \(not read by imgcls\)"):
        check_parity(classifier, written, paths[-1:])


def test_program_that_fails(classifier: Classifier, photos: list[str], tmp_path: Path) -> None:
    written = answering(classifier.predict(photos), tmp_path)
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(RunError, match=r"the exported model cannot be run: FileNotFoundError.*rows.csv"):
        check_parity(classifier, written, photos)
    other = answering(classifier.predict(photos).rename(columns={"prob_red": "prob_pink"}), tmp_path)
    with pytest.raises(RunError, match="other classes"):
        check_parity(classifier, other, photos)
