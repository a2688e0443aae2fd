"""Real runs: a trained and an untrained model differ, two seeds do not."""

import json
from pathlib import Path

import pytest

from imgcls.cli.main import main
from tests.helpers.markdown import ROOT

QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


@pytest.mark.slow
def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    runs = {"one": ("1", "3.0e-3", "8"), "two": ("2", "3.0e-3", "8"), "untrained": ("1", "1.0e-9", "1")}
    for name, (seed, rate, epochs) in runs.items():
        keys = {"trainer.max_epochs": epochs, "model.optimizer_config.lr": rate, "seed_everything": seed}
        folders = {"experiment.output_dir": str(tmp_path), "experiment.custom_folder_name": name}
        main(["fit", "--config", QUICKSTART, *(f"--{key}={value}" for key, value in (keys | folders).items())])
    found = {}
    for other in ("two", "untrained"):
        record = tmp_path / f"{other}.json"
        main(["compare", *(str(tmp_path / name / "version_0") for name in ("one", other)), "--json", str(record)])
        [found[other]] = json.loads(record.read_text(encoding="utf-8"))["pairs"]
    assert found["two"]["better"] is None
    assert "not distinguishable" in found["two"]["verdict"]
    assert found["untrained"]["better"] == "A"
    assert found["untrained"]["verdict"].startswith("A is better than B by")
