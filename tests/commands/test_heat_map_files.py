"""Heat maps beside the thumbnails of a report: of mistakes against the true class; a network without any."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imgcls.cli.main import main
from imgcls.commands.heat_map_files import wanted_maps
from imgcls.data.splitting.split import Split
from imgcls.datasets.folder import FolderImageDataset
from imgcls.results.predictions import EvaluatedSplit


def test_mistakes_are_set_against_the_true_class(photos: Path) -> None:
    split = Split(FolderImageDataset(str(photos)), labels=None)
    labels, probs = np.array([0, 1, 2]), np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [np.nan, 0, 0]])
    found = EvaluatedSplit("test", ["a", "b", "c"], labels, probs, probs.argmax(1), ["x", "y", "z"])
    wanted = wanted_maps(found, {"b": (split, 5), "a": (split, 4), "c": (split, 6), "of train": (split, 7)})
    assert {path: each[1:] for path, each in wanted.items()} == {"b": (5, 0, 1), "a": (4, 0, None)}
    assert list(wanted) == ["b", "a"]


def fit(photos: Path, tiny_model: Path, folder: Path, *more: str) -> Path:
    line = ["fit", str(photos), "--model.model_name", str(tiny_model), "--model.pretrained", "false"]
    line += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.num_workers", "0", *more]
    main([*line, "--experiment.output_dir", str(folder), "--experiment.custom_folder_name", "x"])
    return folder / "x" / "version_0"


def test_thumbnails_of_a_fit_have_heat_maps(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = fit(photos, tiny_model, tmp_path, "--model.freeze_encoder", "true")
    table = pd.read_csv(run / "thumbnails.csv", keep_default_na=False)
    predictions = pd.read_csv(run / "validation_predictions.csv")
    with_map = table[table["heat_map"] != ""]
    assert set(with_map["path"]) == set(predictions["path"]) & set(table["path"])
    assert len(with_map) > 0
    for file in with_map["heat_map"]:
        with Image.open(run / file) as picture:
            assert max(picture.size) == 128
    assert (run / "report.html").read_text(encoding="utf-8").count("data:image/webp") >= len(table) + len(with_map)


def test_report_does_without(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imgcls.explain.heat_maps.find_layer", lambda *_: None)
    run = fit(photos, tiny_model, tmp_path)
    assert "No heat maps in the report: this network has no layer with a usable spatial grid" in capsys.readouterr().err
    table = pd.read_csv(run / "thumbnails.csv", keep_default_na=False)
    assert (len(table) > 0, set(table["heat_map"])) == (True, {""})
    assert (run / "report.html").exists()
