"""The examples run, with fewer epochs."""

import json
import runpy
import shutil
import subprocess
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from imgcls.cli.main import main
from tests.helpers.markdown import ROOT


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples as the working directory."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.syspath_prepend(tmp_path / "examples")
    return tmp_path / "examples"


def test_own_dataset_learns(examples: Path) -> None:
    main(["fit", "--config", "own_dataset.yaml", "--trainer.max_epochs=3", "--data.num_workers=0"])
    metrics = pd.read_csv(examples / "runs/shapes/version_0/metrics.csv")
    assert metrics["validation_accuracy"].max() > 0.6
    assert len(pd.read_csv(examples / "runs/shapes/version_0/splits.csv")) == 750


def test_notebook_runs(examples: Path) -> None:
    mpl.use("agg")
    cells = json.loads((examples / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, object] = {}
    for cell in cells:
        assert cell.get("outputs", []) == []  # nothing of one machine is stored
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace('"max_epochs": 20', '"max_epochs": 1'), namespace)  # noqa: S102
    table = namespace["table"]
    assert isinstance(table, pd.DataFrame)
    assert set(table["prediction"]) <= {"circle", "cross", "square"}
    assert len(table) == 6


def test_python_api_lists_mistakes(
    examples: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "microsoft", examples / "microsoft")
    monkeypatch.setattr("sys.argv", ["python_api.py", str(world / "photos"), "1"])
    runpy.run_path(str(examples / "python_api.py"), run_name="__main__")
    assert "f1_score" in capsys.readouterr().out


def test_slurm_script_is_valid() -> None:
    subprocess.run(["/bin/bash", "-n", ROOT / "examples/slurm.sh"], check=True)
