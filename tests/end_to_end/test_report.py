"""The report at the end of a fit and of an evaluation."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from imgcls.cli.main import main
from imgcls.commands import report_files
from tests.conftest import write_class_folders
from tests.helpers.page import Page
from tests.helpers.runs import arguments, fails

REPORT = "--experiment.report=true"
REPORT_FILES = {"report.html", "per_class.csv", "confusion.csv", "thumbnails.csv", "image_properties.csv"}


def test_fit_and_test_leave_a_report(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(photos, tiny_model, tmp_path, REPORT, f"--data.dataset_classes.test={test_photos}")
    main(["fit", *line, "--trainer.max_epochs=1"])
    folder = tmp_path / "run/version_0"
    error = capsys.readouterr().err
    assert f"Report: {folder}/report.html" in error
    assert "report.html, results.json" in " ".join(error.split())
    assert {path.name for path in folder.iterdir()} >= REPORT_FILES
    page = Page(folder / "report.html")
    results = json.loads((folder / "results.json").read_text())
    assert page.numbers["accuracy"] == pytest.approx(results["test_accuracy"], abs=1e-6)
    assert page.numbers["macro_f1"] == pytest.approx(results["test_f1_score"], abs=1e-6)
    assert page.numbers["balance.train.0"] + page.numbers["balance.validation.0"] == 20
    assert results["intervals"]["test"]["accuracy"] == [page.numbers["accuracy.low"], page.numbers["accuracy.high"]]
    assert results["run"].keys() == {"seconds", "resumed", "finished", "defaults", "device", "precision", "versions"}
    assert results["run"]["versions"]["torch"] in page.text
    _check_thumbnails(folder, test_photos)
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["report/calibration", "report/confusion", "report/training"]
    capsys.readouterr()
    main(["test", str(folder), str(write_class_folders(tmp_path / "others", 4, seed=2)), "--data.num_workers=0"])
    assert f"Report: {folder}/evaluations/1/report.html" in capsys.readouterr().err
    other = Page(folder / "evaluations/1/report.html")
    assert other.numbers["verdict.images"] == 12
    assert "run / version_0, evaluation 1" in other.text


def _check_thumbnails(folder: Path, images: Path) -> None:
    rows = pd.read_csv(folder / "thumbnails.csv", keep_default_na=False)
    assert 0 < len(rows) <= 96
    assert set(rows["path"]) <= {str(path) for path in images.rglob("*.png")} | set(
        pd.read_csv(folder / "splits.csv")["path"]
    )
    for path, file in zip(rows["path"], rows["file"], strict=True):
        with Image.open(path) as image, Image.open(folder / file) as thumbnail:
            assert thumbnail.format == "WEBP"
            assert max(thumbnail.size) <= 128
            assert thumbnail.size == image.size  # which is smaller


def test_validation_alone_and_no_report_without_results(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, REPORT, "--trainer.max_epochs=1")])
    page = Page(tmp_path / "run/version_0/report.html")
    assert "These validation images also chose the best epoch" in page.text
    capsys.readouterr()
    main(["fit", *arguments(photos, tiny_model, tmp_path / "fast", REPORT, "--trainer.fast_dev_run=true")])
    assert "Report:" not in capsys.readouterr().err
    assert not list((tmp_path / "fast").rglob("report.html"))


def test_a_report_that_fails_does_not_lose_the_fit(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: object) -> None:
        raise ZeroDivisionError("a planted fault")

    monkeypatch.setattr(report_files, "advise", broken)
    main(["fit", *arguments(photos, tiny_model, tmp_path, REPORT, "--trainer.max_epochs=1")])
    folder = tmp_path / "run/version_0"
    output = capsys.readouterr()
    assert "No report.html: ZeroDivisionError: a planted fault" in output.err
    assert f"imgcls report {folder}" in output.err
    assert output.out.splitlines()[-1] == str(folder)
    assert (folder / "results.json").exists()
    assert not (folder / "report.html").exists()


def test_interrupted_report_leaves_a_complete_run(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report_files, "advise", interrupted)
    with pytest.raises(SystemExit):
        main(["fit", *arguments(photos, tiny_model, tmp_path, REPORT, "--trainer.max_epochs=1")])
    folder = tmp_path / "run/version_0"
    assert f"are complete; to write the report: imgcls report {folder}" in capsys.readouterr().err
    assert (folder / "results.json").exists()


def test_images_without_files_have_thumbnails(tiny_model: Path, tmp_path: Path) -> None:
    data = ["--data.dataset_classes.train={class_path: imgcls.DigitsDataset, init_args: {part: test}}"]
    line = [
        each
        for each in arguments(tmp_path, tiny_model, tmp_path, REPORT)
        if not each.startswith("--data.dataset_classes")
    ]
    main(["fit", *line, *data, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"])
    rows = pd.read_csv(tmp_path / "run/version_0/thumbnails.csv")
    assert rows["path"].str.startswith("digits/").all()
    page = Page(tmp_path / "run/version_0/report.html")
    assert {f"t{number}" for number in range(len(rows))} <= page.idents


def test_a_resumed_run_removes_the_report_of_its_earlier_end(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, REPORT, "--trainer.max_epochs=1")]
    main(line)
    broken = "--trainer.callbacks={class_path: tests.helpers.killer.Faulty, init_args: {kind: weights}}"
    fails([*line, "--ckpt_path=last", "--trainer.max_epochs=3", broken], capsys)
    assert not (tmp_path / "run/version_0/report.html").exists()
