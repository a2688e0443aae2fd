"""read_predictions: tables as the program writes them, with names that a spreadsheet or UTF-8 would not take."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from imgcls.errors import ConfigError
from imgcls.results.predictions import read_predictions


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """A table of predictions: path, label, prediction, probability, one column per class, error."""
    text = io.StringIO(newline="")
    header = ["path", "label", "prediction", "probability", *(f"prob_{name}" for name in names), "error"]
    csv.writer(text).writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.getvalue().encode(errors="surrogateescape"))
    return path


def test_single_label(tmp_path: Path) -> None:
    rows = [
        ["a.png", "cat", "dog", "0.75", "0.25", "0.75", ""],
        ["b.png", "dog", "dog", "0.9", "0.1", "0.9", ""],
        ["c.png", "cat", "", "", "", "", "c.png: is empty"],
    ]
    found = read_predictions(write_rows(tmp_path / "test_predictions.csv", ["cat", "dog"], rows))
    assert (found.split, found.paths, found.class_names) == ("test", ["a.png", "b.png"], ["cat", "dog"])
    assert (found.labels.tolist(), found.predicted.tolist()) == ([0, 1], [1, 1])
    assert found.probs.tolist() == [[0.25, 0.75], [0.1, 0.9]]
    assert (found.correct.tolist(), found.confidence.tolist()) == ([False, True], [0.75, 0.9])
    assert not found.multilabel
    assert not found.chose_epoch
    assert found.errors == {"c.png": "c.png: is empty"}


def test_multilabel(tmp_path: Path) -> None:
    rows = [
        ["a.png", "cat;dog", "dog", "0.75", "0.25", "0.75", ""],
        ["b.png", "", "", "", "0.125", "0.25", ""],
    ]
    found = read_predictions(write_rows(tmp_path / "validation_predictions.csv", ["cat", "dog"], rows))
    assert found.multilabel
    assert found.labels.tolist() == [[True, True], [False, False]]
    assert found.predicted.tolist() == [[False, True], [False, False]]
    assert (found.correct.tolist(), found.confidence.tolist()) == ([False, True], [0.75, 0.75])
    assert found.chose_epoch


def test_multilabel_of_one_class_each_is_recorded_beside_the_table(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "test_predictions.csv", ["cat", "dog"], [["a", "dog", "dog", "0.7", "0.3", "0.7", ""]])
    assert not read_predictions(path).multilabel
    (tmp_path / "test_results.json").write_text(json.dumps({"multilabel": True}))
    assert read_predictions(path).multilabel


def test_names_that_a_spreadsheet_would_evaluate_and_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    names = ["-a", "b;c", "d\udcff"]
    rows = [
        ["./=x.png", "'-a", "b;c", "0.5", "0.25", "0.5", "0.25", ""],
        ["y\udcfe.png", "d\udcff", "d\udcff", "0.5", "0.25", "0.25", "0.5", ""],
    ]
    found = read_predictions(write_rows(tmp_path / "test_predictions.csv", names, rows))
    assert (found.paths, found.class_names) == (["=x.png", "y\udcfe.png"], names)
    assert (found.labels.tolist(), found.predicted.tolist()) == ([0, 2], [1, 2])


def test_multilabel_names_with_the_separator(tmp_path: Path) -> None:
    rows = [["a", '["b;c", "d"]', "'-a;d", "0.9;0.9", "0.9", "0.1", "0.9", ""]]
    found = read_predictions(write_rows(tmp_path / "test_predictions.csv", ["-a", "b;c", "d"], rows))
    assert found.labels.tolist() == [[False, True, True]]
    assert found.predicted.tolist() == [[True, False, True]]


def test_validation_on_other_images_has_not_chosen_the_epoch(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "1" / "validation_predictions.csv"
    write_rows(path, ["cat", "dog"], [["a", "dog", "dog", "0.7", "0.3", "0.7", ""]])
    changed = {"data.init_args.dataset_classes.validation": "others"}
    (path.parent / "evaluation.json").write_text(json.dumps({"changed": changed}))
    assert not read_predictions(path).chose_epoch


def test_probabilities_are_read_back_exactly(tmp_path: Path) -> None:
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)
    rows = [["a", "x", "xyz"[row.argmax()], str(row.max()), *map(str, row), ""] for row in probs]
    found = read_predictions(write_rows(tmp_path / "test_predictions.csv", "xyz", rows))
    assert (found.probs.astype(np.float32) == probs).all()


@pytest.mark.parametrize(
    ("header", "message"), [("path,prediction", "expected the columns path, label, prediction"), ("", "expected the")]
)
def test_other_tables_are_refused(tmp_path: Path, header: str, message: str) -> None:
    path = tmp_path / "test_predictions.csv"
    path.write_text(f"{header}\n")
    with pytest.raises(ConfigError, match=message):
        read_predictions(path)


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "test_predictions.csv", ["cat", "dog"], [["a", "cow", "dog", "0.7", "0.3", "0.7", ""]])
    with pytest.raises(ConfigError, match=r"test_predictions\.csv: 'cow' is none of its classes"):
        read_predictions(path)
