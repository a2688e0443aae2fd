"""What an evaluation leaves: figures and a row per image, where, and what is never overwritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from imgcls.cli.main import main
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, fails, load

NAMES = ["blue", "green", "red"]
FILES = {
    "results.json",
    *(f"{split}_{name}" for split in ("validation", "test") for name in ("results.json", "predictions.csv")),
}


@pytest.fixture(scope="module")
def run(photos: Path, test_photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with test data."""
    out = tmp_path_factory.mktemp("runs")
    more = [f"--data.dataset_classes.test={test_photos}", "--model.optimizer_config.lr=0.05"]
    main(["fit", *arguments(photos, tiny_model, out, *more)])
    return out / "run/version_0"


OF_REPORT = {"confusion.csv", "per_class.csv", "image_properties.csv", "thumbnails.csv"}


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in {".csv", ".json"}
    }


@pytest.mark.parametrize("split", ["validation", "test"])
def test_rows_of_a_fit_agree_with_its_figures(split: str, run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= FILES
    rows = pd.read_csv(run / f"{split}_predictions.csv")
    assert list(rows) == ["path", "label", "prediction", "probability", *(f"prob_{name}" for name in NAMES), "error"]
    parts = pd.read_csv(run / "splits.csv").query("split == @split")
    assert list(rows["path"]) == list(parts["path"])
    assert list(rows["label"]) == list(parts["label"])
    results, own = (json.loads((run / name).read_text()) for name in ("results.json", f"{split}_results.json"))
    assert results[f"{split}_accuracy"] == pytest.approx(accuracy_score(rows["label"], rows["prediction"]))
    expected = f1_score(rows["label"], rows["prediction"], average="macro", labels=NAMES, zero_division=0)
    assert results[f"{split}_f1_score"] == pytest.approx(expected)
    assert own["checkpoint"] == str(run / "checkpoints/best.ckpt")
    assert (own["image_size"], own["images"]) == ([32, 32], {split: len(rows)})
    scores = precision_recall_fscore_support(rows["label"], rows["prediction"], labels=NAMES, zero_division=np.nan)
    assert list(own["classes"][split]) == NAMES
    for name, *values in zip(NAMES, *scores, strict=True):
        found = own["classes"][split][name]
        written = [found[key] for key in ("precision", "recall", "f1_score", "support")]
        np.testing.assert_allclose(np.array(written, float), values)  # null is NaN
    table = confusion_matrix(rows["label"], rows["prediction"], labels=NAMES)
    pairs = {(pair["true"], pair["predicted"]): pair["images"] for pair in own["confused"][split]}
    assert pairs == {
        (NAMES[true], NAMES[other]): table[true, other] for true, other in np.argwhere(table) if true != other
    }
    for key in ("images", "classes", "confused", "intervals"):
        assert results.get(key, {}).get(split) == own.pop(key, {}).get(split)
    assert {key: own[key] for key in results if key in own} == {
        key: value for key, value in results.items() if key == "epoch" or key.startswith(split)
    }


def test_evaluations_of_other_data_or_settings_have_folders_of_their_own(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = write_class_folders(tmp_path / "others", 2, seed=5)
    shutil.copytree(run, tmp_path / "version_0")
    run = tmp_path / "version_0"
    line = ["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--experiment.report=false"]
    before = content(run)
    capsys.readouterr()
    main(line)
    shown = capsys.readouterr()
    assert content(run).keys() == before.keys()
    assert content(run)["test_predictions.csv"] == before["test_predictions.csv"]
    assert f"Results: {run}/test_results.json\nOne row per image: {run}/test_predictions.csv\nTo predict:" in shown.err
    assert "\nTest: 18 images, 3 classes, 32 x 32 pixels\n" in shown.err
    assert f"imgcls predict {run} IMAGES" in shown.err
    main([*line, f"--config={run}/config.yaml"])  # the same values
    before = content(run)
    main([*line, "--tta=hflip"])
    main([*line, f"--data.dataset_classes.test={others}"])
    main([*line, "--trainer.limit_test_batches=1"])
    trained = [f"--data.dataset_classes.test={photos}", "--data.on_leak=warn"]
    capsys.readouterr()
    main([*line, *trained])
    said = capsys.readouterr().err
    assert {name: text for name, text in content(run).items() if "evaluations" not in name} == before
    records = [json.loads((run / f"evaluations/{number}/evaluation.json").read_text()) for number in (1, 2, 3, 4)]
    table = pd.read_csv(run / "splits.csv")
    of_train = table["path"][table["split"] == "train"].tolist()
    assert [len(record["trained_on"]) for record in records] == [0, 0, 0, len(of_train)]
    assert set(records.pop()["trained_on"]) == set(of_train)
    assert f"the checkpoint was trained on {len(of_train)} of these " in said
    chose = (table["split"] == "validation").sum()
    assert f"test: {chose} of these " in said
    assert "are validation images of the run, which chose its best epoch" in said
    assert [record["images"] for record in records] == [18, 6, 8]
    assert [record["changed"] for record in records] == [
        {"tta": "hflip"},
        {"data.init_args.dataset_classes.test": str(others)},
        {"trainer.limit_test_batches": 1},
    ]
    assert [len(pd.read_csv(run / f"evaluations/{number}/test_predictions.csv")) for number in (1, 2, 3)] == [18, 6, 8]
    torch.save(load(run / "checkpoints/best.ckpt") | {"global_step": 7}, run / "checkpoints/other.ckpt")
    main(["validate", f"--ckpt_path={run}/checkpoints/other.ckpt"])
    assert content(run / "evaluations/5").keys() == {
        "validation_results.json",
        "validation_predictions.csv",
        "evaluation.json",
        "splits.csv",
        *OF_REPORT,
    }
    assert {name: text for name, text in content(run).items() if "evaluations" not in name} == before


def test_images_without_labels_are_named_before_unreadable_ones(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    code, said = fails(["test", str(run), str(tmp_path)], capsys)
    assert (code, f"test: {tmp_path} contains images but no class folders" in said) == (2, True), said
    assert "imgcls predict RUN IMAGES" in said


def test_checkpoint_outside_of_a_run_leaves_nothing_unasked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(run / "checkpoints/best.ckpt", tmp_path / "mine.ckpt")
    monkeypatch.chdir(tmp_path)
    main(["test", "--ckpt_path=mine.ckpt"])
    assert "mine.ckpt is not in a run folder: results are not kept; to keep them: --output" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.ckpt"]
    main(["test", "--ckpt_path=mine.ckpt", "--output=figures"])
    evaluated = {"test_results.json", "test_predictions.csv", "evaluation.json", "splits.csv"}
    assert content(tmp_path / "figures").keys() == evaluated | OF_REPORT
    code, said = fails(["test", "--ckpt_path=mine.ckpt", "--output=figures"], capsys)
    assert (code, "--output figures: test_results.json exists; give another folder" in said) == (2, True), said


@pytest.mark.parametrize("command", ["validate", "test"])
def test_run_folder_is_no_output(
    command: str, run: Path, test_photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(run / "checkpoints", tmp_path / "version_0/checkpoints")
    code, said = fails([command, str(run), str(test_photos), "--output", f"{tmp_path}/version_0/"], capsys)
    assert code == 2
    assert f"--output {tmp_path}/version_0: this is the folder of a run, whose report and tables would be" in said
    assert f"give another folder, for example --output {tmp_path}/version_0/more_photos" in said
    assert [path.name for path in (tmp_path / "version_0").iterdir()] == ["checkpoints"]


def test_few_predictions_are_printed(
    run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_text("no image")
    image = test_photos / "red/000.png"
    line = ["predict", f"--ckpt_path={run}/checkpoints/best.ckpt", f"--output={tmp_path}/p.csv", "--images"]
    main([*line, str(image), str(tmp_path / "broken.png")])
    captured = capsys.readouterr()
    *table, last = captured.out.splitlines()
    assert "\nPrediction: 2 images, 3 classes, 32 x 32 pixels\n" in captured.err
    assert (
        f"1 of 2 images could not be predicted: {tmp_path}/broken.png: is a text file, not an image\n" in captured.err
    )
    assert last == f"{tmp_path}/p.csv"
    row = pd.read_csv(last).set_index("path").loc[str(image)]
    assert table[0].split() == ["path", "prediction", "probability", "error"]
    assert [str(image), str(row["prediction"]), f"{row['probability']:.4f}"] in [text.split() for text in table]
