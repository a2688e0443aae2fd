"""read_run: what is in a run folder, and what is not."""

import json
from pathlib import Path

import pytest

from imgcls.errors import ConfigError
from imgcls.results.run import read_run
from tests.results.test_predictions import write_rows

ROWS = [["a", "cat", "dog", "0.75", "0.25", "0.75", ""]]


def test_a_run_folder(tmp_path: Path) -> None:
    write_rows(tmp_path / "validation_predictions.csv", ["cat", "dog"], ROWS)
    (tmp_path / "config.yaml").write_text("seed_everything: 7\n")
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n0,4,1.5\n1,8,0.5\n")
    (tmp_path / "data.json").write_text(json.dumps({"used": 1, "unused": []}))
    (tmp_path / "splits.csv").write_bytes(b"path,label,split,content\n\xff.png,NA,train,ab\n")
    (tmp_path / "results.json").write_text(json.dumps({"validation_accuracy": 0.5}))
    run = read_run(tmp_path)
    assert run.config == {"seed_everything": 7}
    assert run.history is not None
    assert run.history["train_loss"].tolist() == [1.5, 0.5]
    assert run.data["used"] == 1
    assert run.results == {"validation_accuracy": 0.5}
    assert run.splits is not None
    assert [run.splits["path"][0], run.splits["label"][0]] == ["\udcff.png", "NA"]
    assert (run.evaluated.split, run.evaluated.chose_epoch) == ("validation", True)
    assert run.evaluation("test") is None


def test_test_images_come_before_validation(tmp_path: Path) -> None:
    for split in ("validation", "test"):
        write_rows(tmp_path / f"{split}_predictions.csv", ["cat", "dog"], ROWS)
    assert read_run(tmp_path).evaluated.split == "test"


def test_a_table_without_predictions_is_not_passed_over(tmp_path: Path) -> None:
    write_rows(tmp_path / "validation_predictions.csv", ["cat", "dog"], ROWS)
    write_rows(tmp_path / "test_predictions.csv", ["cat", "dog"], [["a", "cat", "", "", "", "", "is damaged"]])
    found = read_run(tmp_path).evaluated
    assert (found.split, len(found), found.errors) == ("test", 0, {"a": "is damaged"})


def test_an_evaluation_has_the_curves_of_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "1"
    write_rows(folder / "test_predictions.csv", ["cat", "dog"], ROWS)
    (folder / "test_results.json").write_text(json.dumps({"test_accuracy": 0.0}))
    (tmp_path / "config.yaml").write_text("seed_everything: 7\n")
    run = read_run(folder)
    assert run.home == tmp_path
    assert run.config == {"seed_everything": 7}
    assert run.results == {"test_accuracy": 0.0}


def test_what_is_missing(tmp_path: Path) -> None:
    run = read_run(tmp_path)
    assert (run.config, run.history, run.data, run.splits) == ({}, None, {}, None)
    with pytest.raises(ConfigError, match="is not a run folder"):
        run.evaluated  # noqa: B018
    (tmp_path / "config.yaml").write_text("seed_everything: 7\n")
    with pytest.raises(ConfigError, match=r"neither test_predictions\.csv nor validation_predictions\.csv"):
        run.evaluated  # noqa: B018
    with pytest.raises(ConfigError, match="no such folder"):
        read_run(tmp_path / "none")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(ConfigError, match=r"data\.json: cannot be read"):
        read_run(tmp_path).data  # noqa: B018
    (tmp_path / "splits.csv").write_text("path\n0.png\n")
    with pytest.raises(ConfigError, match=r"splits\.csv: cannot be read \(no column 'label'\)"):
        read_run(tmp_path).labels("train")


def test_properties_are_those_of_the_evaluated_images(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "1"
    folder.mkdir(parents=True)
    (tmp_path / "image_properties.csv").write_text("path,split,width\n0,train,8\n1,test,9\n1,test,9\n")
    run = read_run(folder)
    assert [run.properties(split) is None for split in ("train", "test", "validation")] == [False, False, True]
    (folder / "image_properties.csv").write_text("path,split,width\n2,test,7\n")
    run = read_run(folder)
    found = {
        split: table["width"].to_dict() for split in ("train", "test") if (table := run.properties(split)) is not None
    }
    assert found == {"train": {"0": 8}, "test": {"2": 7}}
