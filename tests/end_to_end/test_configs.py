"""Every configuration that is shipped runs, through the real entry point."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from imgcls.cli.main import main

ROOT = Path(__file__).parents[2]
SEARCH = ROOT / "configs/search.yaml"  # a second one, beside another
CONFIGS = sorted({*ROOT.glob("configs/*.yaml")} - {SEARCH})


def test_quickstart_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    main(
        ["fit", "--config", "configs/quickstart.yaml", f"--experiment.output_dir={tmp_path}", "--trainer.max_epochs=8"]
    )
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert pd.read_csv(folder / "metrics.csv")["validation_accuracy"].max() > 0.95


def test_search_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--optuna.n_trials=2"]
    configs = ["--config", "configs/quickstart.yaml", "--config", str(SEARCH)]
    main(["tune", *configs, *short, f"--experiment.output_dir={tmp_path}"])
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder == tmp_path / "digits/tune"
    lr = pd.read_csv(folder / "trials.csv")["model.init_args.optimizer_config.lr"]
    assert len(lr) == 2
    assert lr.between(1e-5, 1e-3).all()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    test_photos: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With small images and a tiny model in place of those that it names: all else is as shipped."""
    config = yaml.safe_load(path.read_text())
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    for name, spec in config["data"]["init_args"]["dataset_classes"].items():
        root = spec if isinstance(spec, str) else (spec or {}).get("init_args", {}).get("root")
        if root:
            shutil.copytree({"train": photos}.get(name, test_photos), root)
    model = config["model"]["init_args"]["model_name"]
    if not Path(model).exists():
        shutil.copytree(tiny_model, model)
    line = ["--config", str(path)]
    main(["fit", *line, "--model.pretrained=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"])
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.parent.name == config["experiment"]["custom_folder_name"]
    assert np.isfinite(pd.read_csv(folder / "metrics.csv")["validation_loss"]).all()
    checkpoint = ["--ckpt_path", str(folder / "checkpoints/best.ckpt")]
    for command in ("validate", "test"):
        main([command, *checkpoint])
        assert "accuracy" in capsys.readouterr().out
    if config["data"]["init_args"]["dataset_classes"].get("predict"):
        main(["predict", *checkpoint])
        assert len(pd.read_csv(folder / "predictions.csv")) == 18
    main(["fit", *line, "--model.pretrained=false", "--trainer.fast_dev_run=true"])
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
