"""The command ``report``, and the files that it writes beside the page."""

import json
import logging
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from imgcls.cli.main import main
from imgcls.report.write import write_report
from tests.helpers.page import Page
from tests.helpers.run_folders import write_run
from tests.helpers.runs import fails
from tests.results.test_predictions import write_rows


def test_files_of_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "runs/cats/version_0", ["cat", "dog", "cow"], 60)
    main(["report", str(folder)])
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    classes, confusion = (pd.read_csv(folder / name) for name in ("per_class.csv", "confusion.csv"))
    assert classes["class"].tolist() == ["cat", "dog", "cow"]
    assert classes["support"].tolist() == confusion.drop(columns="class").sum(axis=1).tolist()
    assert (classes["recall_low"] <= classes["recall"]).all()
    for name in ("training", "confusion", "calibration"):
        with Image.open(folder / f"report/{name}.png") as picture:
            assert picture.size[0] > 300
    for name in ("results.json", "test_results.json"):
        low, high = json.loads((folder / name).read_text())["intervals"]["test"]["accuracy"]
        assert 0 < low < high < 1


def test_of_multilabel_data(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "version_0", ["cat", "dog", "cow"], 60, multilabel=True)
    main(["report", str(folder)])
    counts = pd.read_csv(folder / "confusion.csv")
    columns = ["class", "true_positive", "false_negative", "false_positive", "true_negative"]
    assert counts.columns.tolist() == columns
    assert (counts[columns[1:]].sum(axis=1) == 60).all()


def test_pictures_say_which_characters_no_font_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    names = ["\U000130e0", "dog"]  # a hieroglyph
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(write_run(tmp_path / "version_0", names, 60))
    assert "confusion.png: no installed font has all characters of the class names" in caplog.text
    assert "training.png" not in caplog.text


def test_another_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "version_0", ["cat", "dog"], 60)
    before = {path.name for path in folder.iterdir()}
    main(["report", str(folder), "--output", str(tmp_path / "mail/flowers.html")])
    assert (tmp_path / "mail/flowers.html").stat().st_size > 20_000
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "version_0/config.yaml"], "--output version_0/config.yaml: the page is HTML; give a file that"),
        (["--output", "notes.html"], "notes.html exists; add --overwrite"),
        (["--outptu", "page.html"], "imgcls report: unknown option --outptu; did you mean '--output'?"),
        (["version_0"], "imgcls report: 'version_0' is not expected"),
    ],
)
def test_refused_options(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "version_0", ["cat", "dog"], 60)
    (tmp_path / "notes.html").write_text("mine")
    code, error = fails(["report", "version_0", *words], capsys)
    assert (code, message in error) == (2, True), error
    assert (tmp_path / "notes.html").read_text() == "mine"
    main(["report", "version_0", "--output", "notes.html", "--overwrite"])
    assert "<html" in (tmp_path / "notes.html").read_text()


def test_short_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "runs/cats/version_3", ["cat", "dog"], 60)
    (folder / "checkpoints").mkdir()
    best = folder / "checkpoints/best.ckpt"
    best.touch()
    for run in (str(best), str(best.parent), "last"):
        (folder / "report.html").unlink(missing_ok=True)
        main(["report", run, "--experiment.output_dir", str(tmp_path / "runs")])
        assert (folder / "report.html").exists()
    capsys.readouterr()
    code, error = fails(["report", "--experiment.output_dir", str(tmp_path / "runs")], capsys)
    assert (code, error) == (2, f"imgcls: report needs a run; type: imgcls report {folder}")
    for parent in (tmp_path / "runs/cats", tmp_path / "runs"):
        code, error = fails(["report", str(parent)], capsys)
        assert (code, f"{parent} is not a run folder; did you mean '{folder}'?" in error) == (2, True), error


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "version_0", ["cat", "dog"], 60)
    code, error = fails(["report", str(tmp_path / "version_1")], capsys)
    assert (code, "no such file or folder; did you mean" in error) == (2, True)
    before = (folder / "metrics.csv").read_bytes()
    (folder / "metrics.csv").write_bytes(b"\x00\xff")
    code, error = fails(["report", str(folder)], capsys)
    assert (code, f"{folder}/metrics.csv" in error) == (2, True), error
    (folder / "metrics.csv").write_bytes(before)
    (folder / "test_predictions.csv").unlink()
    code, error = fails(["report", str(folder)], capsys)
    assert (code, "neither test_predictions.csv nor" in error) == (2, True)


def test_a_run_with_predictions_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "version_0", ["cat", "dog"], 60)
    for path in folder.iterdir():
        if path.name != "test_predictions.csv":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    main(["report", str(folder)])
    assert "Settings that differ" not in (folder / "report.html").read_text(encoding="utf-8")


def test_torch_is_not_imported(tmp_path: Path) -> None:
    import subprocess
    import sys

    folder = write_run(tmp_path / "version_0", ["cat", "dog"], 60)
    code = "import sys; from imgcls.cli.main import main; main(sys.argv[1:]); "
    code += "assert not {'torch', 'lightning', 'transformers', 'optuna'} & sys.modules.keys(), 'heavy'"
    subprocess.run([sys.executable, "-c", code, "report", str(folder)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("names", "images", "multilabel"),
    [(["only"], 5, False), (["cat", "dog"], 1, False), (["cat", "dog"], 1, True), (["only"], 4, True)],
)
def test_few_images_and_classes(names: list[str], images: int, multilabel: bool, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "version_0", names, images, multilabel=multilabel, epochs=4)
    main(["report", str(folder)])
    page = Page(folder / "report.html")
    assert page.numbers["verdict.images"] == images
    assert "nan" not in page.text.lower().split()


def test_no_image_with_a_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "version_0"
    write_rows(folder / "test_predictions.csv", ["cat", "dog"], [["a.png", "cat", "", "", "", "", "is damaged"]])
    code, error = fails(["report", str(folder)], capsys)
    assert (code, error) == (2, f"imgcls: {folder}: no image of test has a prediction; there is nothing to report")
