"""Every key of the guide in one YAML, with real pretrained weights."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from imgcls.cli.main import main
from tests.helpers.real_data import write_efficientnet_lite0
from tests.helpers.runs import arguments, fails, load, table_of

CALLBACKS = """
- class_path: lightning.pytorch.callbacks.ModelCheckpoint
  init_args:
    dirpath: null
    filename: "{epoch:03d}-{validation_f1_score:.4f}"
    monitor: validation_f1_score
    mode: max
    save_top_k: 1
    every_n_epochs: 1
- class_path: imgcls.MetricsLogger
  init_args:
    metrics:
      accuracy: {class_path: torchmetrics.Accuracy}
      precision: {class_path: torchmetrics.Precision, init_args: {average: macro}}
      recall: {class_path: torchmetrics.Recall, init_args: {average: macro}}
      f1_score: {class_path: torchmetrics.F1Score, init_args: {average: macro}}
      auroc: {class_path: torchmetrics.AUROC}
- class_path: lightning.pytorch.callbacks.RichProgressBar
  init_args: {refresh_rate: 1}
- class_path: lightning.pytorch.callbacks.EarlyStopping
  init_args: {monitor: validation_f1_score, mode: max, patience: 5, verbose: true}
"""
AUGMENTATIONS = """
train:
  - {class_path: albumentations.RandomResizedCrop, init_args: {size: [64, 64]}}
  - {class_path: albumentations.HorizontalFlip}
  - {class_path: tests.helpers.own.darker, init_args: {amount: 10}}
  - {class_path: albumentations.Normalize}
  - {class_path: albumentations.pytorch.ToTensorV2}
eval:
  - {class_path: albumentations.Resize, init_args: {height: 64, width: 64}}
  - {class_path: albumentations.Normalize}
  - {class_path: albumentations.pytorch.ToTensorV2}
"""


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ImageNet weights."""
    return write_efficientnet_lite0(tmp_path_factory.mktemp("weights") / "efficientnet_lite0")


def guide(lite0: Path, photos: Path, test_photos: Path, out: Path) -> dict[str, Any]:
    def folder(root: Path) -> dict[str, Any]:
        return {"class_path": "imgcls.FolderImageDataset", "init_args": {"root": str(root)}}

    return {
        "seed_everything": 42,
        "ckpt_path": None,
        "experiment": {"custom_folder_name": "guide", "only_weights_load": False, "output_dir": str(out)},
        "model": {
            "class_path": "imgcls.ImageClassifier",
            "init_args": {
                "model_name": str(lite0),
                "num_classes": 3,
                "freeze_encoder": 0.5,
                "optimizer_config": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.01},
            },
        },
        "data": {
            "class_path": "imgcls.ImageDataModule",
            "init_args": {
                "num_workers": 1,
                "batch_size": 16,
                "create_dataset": False,
                "dataset_classes": {
                    "train": folder(photos),
                    "validation": None,
                    "test": folder(test_photos),
                    "predict": folder(test_photos / "red"),
                },
                "augmentations": yaml.safe_load(AUGMENTATIONS),
            },
        },
        "trainer": {
            "accelerator": "auto",
            "devices": "auto",
            "max_epochs": 2,
            "precision": 16,
            "limit_train_batches": 1.0,
            "fast_dev_run": False,
            "callbacks": yaml.safe_load(CALLBACKS),
        },
        "optuna": {
            "tune": True,
            "n_trials": 50,
            "direction": "maximize",
            "metric": "validation_f1_score",
            "search_spaces": {
                "model.init_args.optimizer_config.lr": {"distribution": "uniform", "low": 1e-5, "high": 1e-3}
            },
        },
    }


def test_guide_runs_from_fit_to_predict(
    lite0: Path, photos: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guide.yaml"
    path.write_text(yaml.safe_dump(guide(lite0, photos, test_photos, tmp_path)))
    main(["fit", "--config", str(path), "--model.init_args.optimizer_config.lr", "0.003"])
    output = capsys.readouterr()
    assert "using bf16-mixed" in output.err
    assert "49 of 98 layers frozen" in output.err
    assert "optuna.tune" in output.err
    folder = tmp_path / "guide/version_0"
    fitted = table_of(output.out)
    assert float(fitted["f1_score"][0]) > 0.8
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["optimizer_config"]["lr"] == 0.003
    [top] = (folder / "checkpoints").glob("epoch=*-validation_f1_score=*.ckpt")
    best = folder / "checkpoints/best.ckpt"
    assert load(top)["epoch"] == load(best)["epoch"]
    assert load(best)["imgcls"]["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])

    for place, command in enumerate(("validate", "test")):
        main([command, "--ckpt_path", str(best)])  # in float32, as at the end of fit
        evaluated = table_of(capsys.readouterr().out)
        assert evaluated == {name: [values[place]] for name, values in fitted.items()}
    main(["predict", "--ckpt_path", str(best)])
    assert len(pd.read_csv(folder / "predictions.csv")) == 6

    main(["fit", "--config", str(path), "--trainer.fast_dev_run", "true"])
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]


SPELLINGS = {
    "full": "model: {class_path: imgcls.ImageClassifier, init_args: {optimizer_config: {lr: 0.02}}}",
    "init_args alone": "model: {init_args: {optimizer_config: {lr: 0.02}}}",
    "flat": "model: {optimizer_config: {lr: 0.02}}",
}


def test_spellings_mean_the_same(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    saved = []
    for number, text in enumerate(SPELLINGS.values()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text + "\ndata: {batch_size: 16}\n")
        line = [item for item in arguments(photos, tiny_model, tmp_path) if "lr=" not in item and "batch" not in item]
        main(["fit", "--config", str(path), *line, "--trainer.max_epochs=1"])
        saved.append((tmp_path / "run" / f"version_{number}" / "config.yaml").read_text())
    assert saved[0] == saved[1] == saved[2]
    config = yaml.safe_load(saved[0])
    assert config["model"]["init_args"]["optimizer_config"]["lr"] == 0.02
    assert config["data"]["init_args"]["batch_size"] == 16


def test_later_config_and_command_line_win(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("model: {optimizer_config: {lr: 0.1, weight_decay: 0.1}}\ntrainer: {max_epochs: 9}\n")
    second.write_text("model: {optimizer_config: {lr: 0.2}}\n")
    line = [item for item in arguments(photos, tiny_model, tmp_path) if "lr=" not in item]
    main(["fit", "--config", str(first), "--config", str(second), *line, "--trainer.max_epochs=1"])
    config = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    optimizer = config["model"]["init_args"]["optimizer_config"]
    assert (optimizer["lr"], optimizer["weight_decay"], config["trainer"]["max_epochs"]) == (0.2, 0.1, 1)


def test_own_dataset_class_trains_and_needs_its_config_later(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = "{class_path: tests.helpers.own.Squares}"
    line = [item for item in arguments(Path("unused"), tiny_model, tmp_path) if "dataset_classes" not in item]
    datasets = [f"--data.dataset_classes.train={squares}", f"--data.dataset_classes.test={squares}"]
    main(["fit", *line, *datasets, "--trainer.max_epochs=3", "--data.on_leak=warn"])
    folder = tmp_path / "run/version_0"
    table = pd.read_csv(folder / "splits.csv")
    assert table["split"].value_counts().to_dict() == {"train": 24, "validation": 6, "test": 30}
    checkpoint = ["--ckpt_path", str(folder / "checkpoints/best.ckpt")]
    with pytest.raises(SystemExit) as stop:
        main(["test", *checkpoint])
    assert stop.value.code == 2
    assert "tests.helpers.own.Squares" in capsys.readouterr().err
    main(["test", *checkpoint, "--config", str(folder / "config.yaml")])
    output = capsys.readouterr()
    assert "accuracy" in table_of(output.out)
    assert "tests.helpers.own.Squares" not in output.err


def test_own_function_in_evaluation_needs_its_config(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resize = "{class_path: albumentations.Resize, init_args: {height: 32, width: 32}}"
    steps = f"[{resize}, {{class_path: tests.helpers.own.darker}}]"
    main(
        [
            "fit",
            *arguments(photos, tiny_model, tmp_path, f"--data.augmentations.eval={steps}", "--trainer.max_epochs=1"),
        ]
    )
    folder = tmp_path / "run/version_0"
    line = ["predict", "--ckpt_path", str(folder / "checkpoints/best.ckpt"), "--images", str(photos / "red")]
    code, message = fails(line, capsys)
    assert (code, "tests.helpers.own.darker" in message, "--config" in message) == (2, True, True)
    main([*line, "--config", str(folder / "config.yaml")])
    assert len(pd.read_csv(folder / "predictions.csv")) == 20


def test_default_callbacks_can_be_left_out(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--experiment.default_callbacks=false")])
    folder = tmp_path / "run/version_0"
    assert not list(folder.rglob("*.ckpt"))
    assert (folder / "config.yaml").is_file()
    shutil.rmtree(folder)
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.enable_checkpointing=false")])
    assert not list(folder.rglob("*.ckpt"))
    assert "validation_f1_score" in pd.read_csv(folder / "metrics.csv").columns
