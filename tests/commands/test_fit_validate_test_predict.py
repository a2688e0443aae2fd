"""fit, validate, test and predict through the real entry point."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from imgcls.cli.main import main
from imgcls.datasets.dataset import PathListDataset
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, assert_same_weights, fails, load, table_of

METRICS = {"loss", "accuracy", "precision", "recall", "f1_score"}


@pytest.fixture(scope="module")
def run(photos: Path, test_photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with test data."""
    out = tmp_path_factory.mktemp("runs")
    main(["fit", *arguments(photos, tiny_model, out, f"--data.dataset_classes.test={test_photos}")])
    return out / "run" / "version_0"


def test_fit_writes_the_run_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "metrics.csv", "splits.csv", "data.json", "results.json", "checkpoints"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_fit_records_every_epoch_once(run: Path) -> None:
    table = pd.read_csv(run / "metrics.csv")
    assert list(table["epoch"]) == [0, 1]
    expected = {f"{s}_{m}" for s in ("train", "validation") for m in METRICS}
    assert expected <= set(table.columns)
    assert table[sorted(expected)].notna().to_numpy().all()


def test_fit_writes_its_results(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((run / "results.json").read_text())
    figures = {f"{split}_{name}" for split in ("validation", "test") for name in METRICS}
    assert set(results) == {"epoch", "calibration", "run", "images", "classes", "confused"} | figures
    assert results["images"] == {"validation": 12, "test": 18}
    best = pd.read_csv(run / "metrics.csv").set_index("epoch").loc[results["epoch"]]
    assert results["validation_f1_score"] == pytest.approx(best["validation_f1_score"], abs=1e-6)
    capsys.readouterr()
    main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt"])
    rounded = {name: [f"{results[f'test_{name}']:.4f}"] for name in METRICS}
    assert table_of(capsys.readouterr().out) == rounded


def test_fit_records_the_split(run: Path, photos: Path) -> None:
    table = pd.read_csv(run / "splits.csv")
    assert table["split"].value_counts().to_dict() == {"train": 48, "validation": 12, "test": 18}
    held_out = table[table["split"] == "validation"]
    assert held_out["label"].value_counts().to_dict() == {"blue": 4, "green": 4, "red": 4}
    in_folder = {str(path) for path in photos.rglob("*.png")}
    assert set(table["path"][table["split"] != "test"]) == in_folder
    assert json.loads((run / "data.json").read_text()) == {"used": 78, "content_hash": "full", "unused": []}


def test_fit_ends_with_the_folder(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == str(tmp_path / "run" / "version_0")
    assert set(table_of(output)) == METRICS


def test_saved_config_gives_the_same_weights(run: Path, tmp_path: Path) -> None:
    main(["fit", "--config", str(run / "config.yaml"), f"--experiment.output_dir={tmp_path}"])
    assert_same_weights(run / "checkpoints/last.ckpt", tmp_path / "run/version_0/checkpoints/last.ckpt")
    again = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    first = yaml.safe_load((run / "config.yaml").read_text())
    assert again.pop("experiment") | {"output_dir": ""} == first.pop("experiment") | {"output_dir": ""}
    assert again == first
    assert first["ckpt_path"] is None
    assert first["trainer"]["precision"] is None


def test_second_fit_gets_the_next_version(run: Path, photos: Path, tiny_model: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, run.parent.parent, "--trainer.max_epochs=1")])
    assert (run.parent / "version_1" / "checkpoints" / "last.ckpt").is_file()
    assert len(pd.read_csv(run / "metrics.csv")) == 2


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluation_needs_the_checkpoint_alone(
    run: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main([command, "--ckpt_path", str(run / "checkpoints/best.ckpt")])
    table = table_of(capsys.readouterr().out)
    if command == "validate":
        recorded = pd.read_csv(run / "metrics.csv")
        best = recorded.sort_values(["validation_f1_score", "validation_loss"], ascending=[False, True]).iloc[0]
        assert table["f1_score"] == [f"{best['validation_f1_score']:.4f}"]
        assert float(table["loss"][0]) == pytest.approx(best["validation_loss"], abs=0.01)  # that was in bfloat16
    assert set(table) == METRICS


def test_images_of_the_command_line_may_be_as_large_as_those_of_the_run(
    run: Path, test_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PathListDataset, "max_pixels", 10)  # by itself; the run's datasets allow more
    line = ["--images", str(test_photos), "--output", str(tmp_path / "p.csv")]
    main(["predict", "--ckpt_path", str(run / "checkpoints/best.ckpt"), *line])
    assert pd.read_csv(tmp_path / "p.csv")["error"].isna().all()


def test_test_agrees_with_predictions(
    run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(run / "checkpoints/best.ckpt")
    main(["test", "--ckpt_path", checkpoint])
    accuracy = table_of(capsys.readouterr().out)["accuracy"]
    main(["predict", "--ckpt_path", checkpoint, "--images", str(test_photos), "--output", str(tmp_path / "p.csv")])
    table = pd.read_csv(tmp_path / "p.csv")
    truth = table["path"].map(lambda path: Path(path).parent.name)
    assert [f"{(table['prediction'] == truth).mean():.4f}"] == accuracy


def test_predict_accounts_for_every_file(run: Path, test_photos: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(test_photos / "red", images)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    single = test_photos / "blue" / "000.png"
    (tmp_path / "list.csv").write_text(f"path\nimages/001.png\n{single}\n")
    given = ["--images", str(images), str(single), "--images", str(tmp_path / "list.csv")]
    main(["predict", "--ckpt_path", str(run / "checkpoints/best.ckpt"), *given, f"--output={tmp_path / 'p.csv'}"])
    table = pd.read_csv(tmp_path / "p.csv", dtype={"error": str})
    assert list(table.columns) == ["path", "prediction", "probability", "prob_blue", "prob_green", "prob_red", "error"]
    assert list(table["path"]) == sorted([*map(str, images.iterdir()), str(single)])
    broken = table.set_index("path").loc[str(images / "broken.jpg")]
    assert broken["error"] == "is JPEG, but its header is truncated, damaged or not supported: Truncated File Read"
    assert broken[["prediction", "probability", "prob_red"]].isna().all()
    good = table[table["error"].isna()]
    assert (good[["prob_blue", "prob_green", "prob_red"]].sum(axis=1) - 1).abs().max() < 1e-5
    assert (good["probability"] == good[["prob_blue", "prob_green", "prob_red"]].max(axis=1)).all()
    assert list(tmp_path.glob(".*")) == []


def test_predict_takes_images_of_any_name(run: Path, photos: Path, tmp_path: Path) -> None:
    names = ["😀.png", os.fsdecode(b"\xff.png"), 'it\'s, "so".png']
    for name in names:
        shutil.copy(photos / "red/000.png", tmp_path / name)
    more = tmp_path / "more.yaml"
    more.write_text("data: {batch_size: 2}")
    images = [str(tmp_path / name) for name in names]
    output = f"--output={tmp_path}/p.csv"
    main(["predict", f"--ckpt_path={run}/checkpoints/best.ckpt", output, "--images", *images, "-c", str(more)])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == set(images)
    assert not any(row["error"] for row in rows)


def test_predict_takes_loose_images_beside_class_folders(run: Path, photos: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(photos / "red", mixed)
    shutil.copytree(photos / "blue", mixed / "more")
    line = ["predict", f"--ckpt_path={run}/checkpoints/best.ckpt", f"--output={tmp_path}/p.csv"]
    main([*line, f"--data.dataset_classes.predict={mixed}"])
    assert len(pd.read_csv(tmp_path / "p.csv")) == 40


def test_classes_of_any_name_are_those_of_the_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", 10)
    for colour, name in {"blue": "1e3", "green": os.fsdecode(b"caf\xe9"), "red": "null"}.items():
        (photos / colour).rename(photos / name)
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    checkpoint = f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt"
    main(["validate", checkpoint])
    main(["predict", checkpoint, "--images", str(photos), f"--output={tmp_path}/p.csv"])
    head = (tmp_path / "p.csv").read_bytes().splitlines()[0]
    assert head == b"path,prediction,probability,prob_1e3,prob_caf\xe9,prob_null,error"


def test_folder_that_reads_as_a_number_stays_a_name(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path), "--experiment.custom_folder_name=1e3"]
    main([*line, "--trainer.max_epochs=1"])
    config = tmp_path / "1e3/version_0/config.yaml"
    main(["fit", f"--config={config}"])
    assert (tmp_path / "1e3/version_1").is_dir()


@pytest.mark.parametrize("option", ["limit_predict_batches=1", "fast_dev_run=true"])
def test_predict_leaves_no_image_out(
    option: str, run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        "predict",
        f"--ckpt_path={run / 'checkpoints/best.ckpt'}",
        "--images",
        str(test_photos),
        f"--output={tmp_path / 'p.csv'}",
    ]
    code, message = fails([*line, f"--trainer.{option}"], capsys)
    assert (code, "would leave images without a prediction; leave it out" in message) == (2, True), message
    assert not (tmp_path / "p.csv").exists()


def test_predict_beside_the_checkpoint_writes_into_the_run_folder(
    run: Path, test_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "version_0"
    shutil.copytree(run / "checkpoints", folder / "checkpoints")
    monkeypatch.chdir(folder / "checkpoints")
    main(["predict", "--ckpt_path=best.ckpt", "--images", str(test_photos)])
    assert len(pd.read_csv(folder / "predictions.csv")) == 18


def test_null_of_a_later_file_takes_the_checkpoint_away(
    run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(f"ckpt_path: {run / 'checkpoints/best.ckpt'}\n")
    (tmp_path / "b.yaml").write_text("ckpt_path: null\n")
    line = [f"--config={tmp_path / name}.yaml" for name in "ab"]
    code, message = fails(["predict", *line, "--images", str(test_photos)], capsys)
    assert (code, "predict needs the checkpoint of a trained model" in message) == (2, True), message


def test_predict_does_not_overwrite(run: Path, test_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--images", str(test_photos / "red")]
    main(line)
    written = run / "predictions.csv"
    assert len(pd.read_csv(written)) == 6
    code, message = fails(line, capsys)
    assert (code, "--overwrite" in message, str(written) in message) == (2, True, True)
    main([*line, "--overwrite"])
    written.unlink()


def test_checkpoint_works_with_training_folder_and_model_gone(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "train")
    shutil.copytree(tiny_model, tmp_path / "model")
    main(["fit", *arguments(tmp_path / "train", tmp_path / "model", tmp_path / "out", "--trainer.max_epochs=1")])
    checkpoint = tmp_path / "moved.ckpt"
    (tmp_path / "out/run/version_0/checkpoints/best.ckpt").rename(checkpoint)
    for gone in ("train", "model", "out"):
        shutil.rmtree(tmp_path / gone)
    line = ["--ckpt_path", str(checkpoint)]
    main(["predict", *line, "--images", str(test_photos), "--output", str(tmp_path / "p.csv")])
    assert set(pd.read_csv(tmp_path / "p.csv")["prediction"]) <= {"blue", "green", "red"}
    capsys.readouterr()
    main(["test", *line, f"--data.dataset_classes.test={test_photos}"])
    assert "accuracy" in table_of(capsys.readouterr().out)
    code, message = fails(["test", *line], capsys)
    assert (code, "--data.dataset_classes.test" in message) == (2, True)


def test_labels_match_by_name(run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--ckpt_path", str(run / "checkpoints/best.ckpt"), "--trainer.precision=32"]
    main(["predict", *line, "--images", str(test_photos), f"--output={tmp_path}/p.csv"])
    table = pd.read_csv(tmp_path / "p.csv")
    truth = table["path"].map(lambda path: Path(path).parent.name)
    correct = table["prediction"] == truth
    for name in ("green", "red"):  # the first class is missing
        shutil.copytree(test_photos / name, tmp_path / "part" / name)
    for folder, expected in ((test_photos, correct), (tmp_path / "part", correct[truth != "blue"])):
        capsys.readouterr()
        main(["test", *line, f"--data.dataset_classes.test={folder}"])
        assert table_of(capsys.readouterr().out)["accuracy"] == [f"{expected.mean():.4f}"]


def test_loggers_get_the_values_of_model_and_data(run: Path) -> None:
    values = yaml.safe_load((run / "hparams.yaml").read_text())
    assert values["data.init_args.batch_size"] == 8
    assert values["model.init_args.optimizer_config.name"] == "adamw"
    assert values["model.init_args.loss_config.label_smoothing"] == 0.1  # null in the configuration
    assert values["seed_everything"] == 42


def test_unknown_class_in_test_data(
    run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(test_photos, tmp_path / "more")
    (tmp_path / "more" / "red").rename(tmp_path / "more" / "pink")
    checkpoint = ["--ckpt_path", str(run / "checkpoints/best.ckpt")]
    code, message = fails(["test", *checkpoint, f"--data.dataset_classes.test={tmp_path / 'more'}"], capsys)
    assert code == 2
    assert "classes 'pink' are not among the model's classes, 'blue', 'green', 'red'" in message


def test_checkpoint_holds_what_the_contract_says(run: Path) -> None:
    content = load(run / "checkpoints/best.ckpt")
    record = content["imgcls"]
    assert record["class_names"] == ["blue", "green", "red"]
    assert record["network"]["model_type"] == "resnet"
    assert record["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    found = json.loads((run / "results.json").read_text())["calibration"]
    assert content["state_dict"]["temperature"] == pytest.approx(found["temperature"])
    split = content["ImageDataModule"]["split"]
    assert (len(split["train"]), len(split["validation"])) == (48, 12)
    assert record["preprocessing"]["kernel"] == "torchvision"
    assert content["ImageDataModule"]["eval"][0]["class_path"] == "imgcls.ResizeShortestEdge"
    assert json.loads(content["imgcls_config"])["data"]["init_args"]["batch_size"] == 8
    assert record["versions"]["torch"]


def test_one_batch_is_not_all_whatever_was_imported_before(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """typing remembers a union in the order in which any module wrote it first, here those of the progress bar."""
    limits = ["--trainer.limit_val_batches=1", "--trainer.limit_train_batches=1.0", "--trainer.val_check_interval=3"]
    line = ["fit", *arguments(photos, tiny_model, tmp_path, *limits, "--trainer.max_epochs=1")]
    run = [sys.executable, "-c", f"import imgcls.runtime.progress; from imgcls.cli.main import main; main({line})"]
    subprocess.run(run, check=True, capture_output=True)
    trainer = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text(encoding="utf-8"))["trainer"]
    read = [trainer[key] for key in ("limit_val_batches", "limit_train_batches", "val_check_interval")]
    assert [(value, type(value)) for value in read] == [(1, int), (1.0, float), (3, int)]


def test_trainer_of_the_checkpoint_is_not_used(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.limit_val_batches=1", "--trainer.max_epochs=1")])
    limited = pd.read_csv(tmp_path / "run/version_0/metrics.csv")["validation_loss"].iloc[0]
    capsys.readouterr()
    main(["validate", "--ckpt_path", str(tmp_path / "run/version_0/checkpoints/last.ckpt")])
    assert table_of(capsys.readouterr().out)["loss"] != [f"{limited:.4f}"]


def test_evaluation_without_checkpoint_names_the_newest(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, message = fails(["test"], capsys)
    assert (code, "type: imgcls test runs/NAME/version_N" in message) == (2, True)
    (tmp_path / "runs").symlink_to(run.parent.parent)
    _, message = fails(["test"], capsys)
    assert "type: imgcls test runs/run/version_" in message
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    config = tmp_path / "config.yaml"
    config.write_text("experiment: {output_dir: elsewhere}")
    for named in (["--experiment.output_dir=elsewhere"], [f"--config={config}"]):
        _, message = fails(["test", *named], capsys)
        assert "type: imgcls test elsewhere/run/version_" in message
