"""Trackers get curves, the test and files; one that fails at the end loses nothing; trials are named."""

from pathlib import Path

import pytest
import yaml

from imgcls.cli.main import main
from imgcls.commands.trackers import name_of_trial
from tests.helpers import tracker


def fit(photos: Path, test_photos: Path, tiny_model: Path, folder: Path, fails: bool) -> Path:
    config = folder / "tracked.yaml"
    logger = [
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder / "csv")}},
        {"class_path": "tests.helpers.tracker.Recorder", "init_args": {"fails": fails}},
    ]
    config.write_text(yaml.safe_dump({"trainer": {"logger": logger}}))
    line = ["fit", str(config), str(photos), "--model.model_name", str(tiny_model), "--model.pretrained", "false"]
    line += ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--data.num_workers", "0"]
    line += ["--data.dataset_classes.test", str(test_photos), "--experiment.output_dir", str(folder)]
    tracker.CALLS.clear()
    main([*line, "--experiment.custom_folder_name", "x", "--experiment.report", "true"])
    return folder / "x" / "version_0"


@pytest.mark.parametrize("fails", [False, True])
def test_tracker_gets_curves_test_and_files(
    fails: bool,
    photos: Path,
    test_photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fit(photos, test_photos, tiny_model, tmp_path, fails)
    kinds = [kind for kind, _ in tracker.CALLS]
    assert kinds[0] == "hyperparams"
    metrics = [value for kind, value in tracker.CALLS if kind == "metrics"]
    assert sum("validation_loss" in names for names, _ in metrics) == 2
    assert [value for kind, value in tracker.CALLS if kind == "finalize"] == ["success"]
    after = tracker.CALLS[kinds.index("finalize") + 1 :]
    [(_, (names, step)), *files] = after
    assert ("test_loss" in names, "test_f1_score" in names, step) == (True, True, 4)
    wanted = ["config.yaml", "results.json", "report.html", "best.ckpt"]
    assert files == [("file", (name, True)) for name in wanted]
    error = capsys.readouterr().err
    assert ("Recorder: ConnectionError: no server; the run is complete without it" in error) == fails
    assert (run / "test_predictions.csv").exists()
    assert list((tmp_path / "csv").rglob("metrics.csv"))


def test_trials_are_named() -> None:
    specs = [
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "p", "name": None}},
        {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"run_name": "mine"}},
        {"class_path": "lightning.pytorch.loggers.CometLogger"},
        {"class_path": "tests.helpers.tracker.Recorder", "init_args": {}},
    ]
    named = name_of_trial({"trainer": {"logger": specs, "devices": 1}}, "trial_0003", "cats")["trainer"]
    wandb, mlflow, comet, own = named["logger"]
    assert named["devices"] == 1
    assert (wandb["init_args"], wandb["dict_kwargs"]) == ({"project": "p", "name": "trial_0003"}, {"group": "cats"})
    assert mlflow["init_args"] == {"run_name": "mine"}
    assert comet["dict_kwargs"] == {"name": "trial_0003"}
    assert own == specs[3]
    assert name_of_trial({"trainer": {"logger": None}}, "a", "b") == {"trainer": {"logger": None}}
