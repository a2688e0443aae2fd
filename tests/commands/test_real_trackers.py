"""W&B, MLflow and Comet themselves, offline: ``nox -s trackers``."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgcls.cli.main import main

pytestmark = pytest.mark.trackers

LOGGERS: dict[str, dict[str, Any]] = {
    "WandbLogger": {"init_args": {"project": "cats", "offline": True, "save_dir": "."}},
    "MLFlowLogger": {"init_args": {"experiment_name": "cats"}},
    "CometLogger": {"init_args": {"project": "cats"}},
}
FILES = {"config.yaml", "results.json", "report.html", "best.ckpt"}


@pytest.fixture
def line(photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("COMET_START_ONLINE", "0")  # online: false of Lightning 2.6 disables Comet altogether
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", "comet")
    found = [str(photos), "--model.model_name", str(tiny_model), "--model.pretrained", "false"]
    found += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.num_workers", "0"]
    return [*found, "--experiment.output_dir", "runs", "--experiment.custom_folder_name", "x"]


def database() -> str:
    """Return the URI of MLflow's database, absolute, since mlflow keeps connections by their URI."""
    return f"sqlite:///{Path('mlflow.db').absolute()}"


def config(name: str, **more: Any) -> str:
    given = LOGGERS[name]["init_args"] | ({"tracking_uri": database()} if name == "MLFlowLogger" else {})
    logger = {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": given}
    Path("tracked.yaml").write_text(yaml.safe_dump({"trainer": {"logger": logger}, **more}))
    return "tracked.yaml"


def runs_of(name: str) -> list[set[str]]:
    """Return the files that each run of a tracker has got."""
    if name == "WandbLogger":
        return [set() for _ in Path("wandb").glob("offline-run-*")]
    if name == "CometLogger":
        return [set(zipfile.ZipFile(path).namelist()) for path in Path("comet").glob("*.zip")]
    from mlflow import MlflowClient

    client = MlflowClient(database())
    [experiment] = client.search_experiments(filter_string="name = 'cats'")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all("validation_f1_score" in run.data.metrics for run in runs)
    return [{file.path for file in client.list_artifacts(run.info.run_id)} for run in runs]


@pytest.mark.parametrize("name", LOGGERS)
def test_fit(name: str, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", config(name), *line, "--experiment.report", "true"])
    assert "the run is complete without it" not in capsys.readouterr().err
    [files] = runs_of(name)
    if name == "MLFlowLogger":
        assert files == FILES
    if name == "CometLogger":
        assert len(files) > len(FILES)
    assert os.path.exists("runs/x/version_0/results.json")


@pytest.mark.parametrize("name", LOGGERS)
def test_one_run_a_trial(name: str, line: list[str]) -> None:
    spaces = {"model.init_args.optimizer_config.lr": {"distribution": "loguniform", "low": 1e-4, "high": 1e-2}}
    main(["tune", config(name, optuna={"n_trials": 2, "search_spaces": spaces}), *line])
    assert len(runs_of(name)) == 2
