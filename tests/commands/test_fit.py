"""Options of a fit that change what is watched, kept, or left to do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from transformers import TimmWrapperConfig

from imgcls.cli.main import main
from tests.helpers import own
from tests.helpers.runs import arguments, assert_same_weights, fails, load, program, table_of

PER_CLASS = (
    "{class_path: imgcls.MetricsLogger, init_args: {metrics: "
    "{rec: {class_path: torchmetrics.Recall, init_args: {average: none}}}}}"
)


def test_per_class_metric_alone_is_no_monitor_but_can_be_named(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main([*line, f"--trainer.callbacks=[{PER_CLASS}]"])
    saver = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["callbacks"]["CheckpointSaver"]
    assert saver.pop("best_values").keys() == {
        "validation_loss",
        *(f"validation_rec_{c}" for c in ("blue", "green", "red")),
    }
    assert saver == {
        "monitor": "validation_loss",
        "best_score": pytest.approx(pd.read_csv(tmp_path / "run/version_0/metrics.csv")["validation_loss"][0]),
        "best_epoch": 0,
        "last_is_best": True,
    }
    stopping = (
        "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: validation_rec_red, mode: max}}"
    )
    main([*line, f"--trainer.callbacks=[{PER_CLASS}, {stopping}]"])
    assert "validation_rec_red" in pd.read_csv(tmp_path / "run/version_1/metrics.csv").columns


def test_what_is_typed_wins_over_a_configuration_wherever_it_stands(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    for number, file in enumerate(files):
        file.write_text(f"trainer: {{max_epochs: {number + 2}}}\ndata: {{batch_size: {number + 4}}}\n")
    first, second = (["--config", str(files[0])], ["-c", str(files[1])])
    line = arguments(photos, tiny_model, tmp_path)  # with batches of 8, and 2 epochs
    with pytest.raises(SystemExit):
        main(["fit", *first, *line, *second, "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["data"]["init_args"]["batch_size"], shown["trainer"]["max_epochs"]) == (8, 2)
    rest = [argument for argument in line if "batch_size" not in argument]
    with pytest.raises(SystemExit):
        main(["fit", *rest, *first, *second, "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["batch_size"] == 5


@pytest.mark.parametrize(("given", "edge"), [("null", 34), ("pretrained", 37)])
def test_evaluation_crops_less_than_the_pretrained_model_unless_told(
    given: str, edge: int, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main([*line, f"--data.augmentations.eval={given}"])
    run = tmp_path / "run/version_0"
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert saved["data"]["init_args"]["augmentations"]["eval"] == yaml.safe_load(given)
    resize, crop = load(run / "checkpoints/last.ckpt")["ImageDataModule"]["eval"]
    assert (resize["init_args"]["edge"], crop["init_args"]["height"], crop["init_args"]["width"]) == (edge, 32, 32)


def test_monitor_decides_which_epoch_is_best(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=3")]
    main([*line, "--experiment.monitor=validation_loss"])
    table = pd.read_csv(tmp_path / "run/version_0/metrics.csv")
    best = load(tmp_path / "run/version_0/checkpoints/best.ckpt")
    assert best["epoch"] == table["validation_loss"].idxmin()


@pytest.mark.parametrize(
    ("callback", "instead"),
    [
        (
            "{class_path: lightning.pytorch.callbacks.BackboneFinetuning}",
            "BackboneFinetuning would freeze the new head with the encoder; use model.init_args.freeze_encoder",
        ),
        (
            "{class_path: lightning.pytorch.callbacks.GradientAccumulationScheduler, init_args: {scheduling: {0: 8}}}",
            "use trainer.accumulate_grad_batches",
        ),
        (
            "{class_path: lightning.pytorch.callbacks.ModelPruning, init_args: {pruning_fn: l1_unstructured}}",
            "ModelPruning prunes after the validation",
        ),
    ],
)
def test_callbacks_that_would_undo_the_recipe_are_refused(
    callback: str, instead: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={callback}")], capsys)
    assert (code, instead in message) == (2, True), message
    assert not (tmp_path / "run").exists()


def test_what_a_user_asks_lightning_to_print_is_printed(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    named = "{{class_path: lightning.pytorch.callbacks.{}, init_args: {{monitor: validation_loss, verbose: true}}}}"
    callbacks = ", ".join(map(named.format, ("EarlyStopping", "ModelCheckpoint")))
    more = [f"--trainer.callbacks=[{callbacks}, {{class_path: ModelSummary}}]", "--trainer.profiler=simple"]
    said = program("fit", *arguments(photos, tiny_model, tmp_path, *more)).stderr
    assert "Metric validation_loss improved. New best score: " in said
    assert re.search(r"Epoch 0, global step \d+: 'validation_loss' reached", said)
    assert "Profiler Report" in said
    assert "Total params" in said
    assert "GPU available" not in said


def test_a_section_may_stand_in_a_file_of_its_own(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg/main.yaml").write_text("trainer: trainer.yaml\n")
    (tmp_path / "cfg/trainer.yaml").write_text("log_every_n_steps: 7\n")
    more = ["--config", str(tmp_path / "cfg/main.yaml"), "--model", "ImageClassifier"]
    main(["fit", *more, *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    config = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert config["trainer"]["log_every_n_steps"] == 7


def test_long_names_of_our_classes_are_known_by_the_checkpoint(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    classes = ["--model.class_path=imgcls.models.classifier.ImageClassifier"]
    classes += ["--data.class_path=imgcls.data.datamodule.ImageDataModule"]
    main(["fit", *classes, *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    config = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert [config[part]["class_path"] for part in ("model", "data")] == [
        "imgcls.ImageClassifier",
        "imgcls.ImageDataModule",
    ]
    main(["validate", f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt"])


def test_unknown_monitor_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--experiment.monitor=validation_f1")]
    code, message = fails(line, capsys)
    assert code == 2
    assert "experiment.monitor: no metric is called 'validation_f1'; did you mean 'validation_f1_score'?" in message
    assert not (tmp_path / "run").exists()


_LISTS = """
trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: train_loss}}]}
data:
  augmentations:
    train:
      - {class_path: albumentations.RandomResizedCrop, init_args: {size: [32, 32]}}
      - {class_path: albumentations.HorizontalFlip}
"""


def test_options_reach_items_of_lists(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "lists.yaml"
    config.write_text(_LISTS)
    line = ["fit", "--config", str(config), *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    line += ["--trainer.callbacks.0.init_args.patience", "7", "--data.augmentations.train.1.init_args.p=2.5e-1"]
    line += ["--trainer.callbacks+=imgcls.EMA", "--trainer.callbacks.1.init_args.decay=0.5"]
    more = tmp_path / "more.yaml"
    more.write_text("data: {split_seed: 7}")
    main([*line, "-c", str(more), "--model.unfreeze.1=0.0", "--model.freeze_encoder=0.5"])
    saved = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert saved["data"]["init_args"]["split_seed"] == 7
    assert saved["model"]["init_args"]["unfreeze"] == {"1": 0.0}
    stopping, average = saved["trainer"]["callbacks"]
    assert (stopping["init_args"]["monitor"], stopping["init_args"]["patience"]) == ("train_loss", 7)
    assert average == {"class_path": "imgcls.EMA", "init_args": {"decay": 0.5}}
    crop, flip = saved["data"]["init_args"]["augmentations"]["train"]
    assert crop["init_args"]["size"] == [32, 32]
    assert flip["init_args"] == {"p": 0.25}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("callbacks.0.init_args.patiense=7", "; did you mean 'trainer.callbacks.0.init_args.patience'?"),
        ("callbacks.0.init_args.patience", "--trainer.callbacks.0.init_args.patience needs a value"),
        ("callbacks.1.init_args.patience=7", "trainer.callbacks is a list of 1 items, indexed from 0"),
        ("callbacks.0.init_args.patience=often", "trainer.callbacks.init_args.patience: expected int, not often"),
    ],
)
def test_options_for_items_that_are_not_there(
    option: str, message: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "lists.yaml"
    config.write_text(_LISTS)
    line = ["fit", "--config", str(config), *arguments(photos, tiny_model, tmp_path, f"--trainer.{option}")]
    code, said = fails(line, capsys)
    assert code == 2
    assert message in said


_RESET = """
data: {augmentations: {train: strong, eval: [{class_path: albumentations.Resize, init_args: {height: 8, width: 8}}]}}
model:
  optimizer_config: {lr: 0.5, name: sgd, momentum: 0.9}
  scheduler_config: {name: linear, warmup_epochs: 0.5}
  loss_config: {class_weights: auto, label_smoothing: 0.2}
"""


def test_null_resets_what_a_file_gives(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(_RESET)
    line = ["fit", "--config", str(config), *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    line += [
        "--data.augmentations.eval",
        "null",
        "--data.augmentations.train=null",
        "--model.scheduler_config.name=step",
    ]
    line += ["--model.init_args.optimizer_config.lr=null", "--model.scheduler_config.warmup_epochs", "null"]
    line += ["--model.optimizer_config.name=adamw", "--model.optimizer_config.momentum", "null"]
    line += ["--model.loss_config.class_weights", "null", "--model.loss_config.label_smoothing=null"]
    line += ["--model.optimizer_config.eps=null", "--model.init_args.optimizer_config.eps=1e-7"]
    main(line)
    saved = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    model = saved["model"]["init_args"]
    assert saved["data"]["init_args"]["augmentations"] == {"train": None, "eval": None}
    assert [model["optimizer_config"][key] for key in ("name", "lr", "momentum", "eps")] == ["adamw", None, None, 1e-7]
    assert [model["scheduler_config"][key] for key in ("name", "warmup_epochs")] == ["step", None]
    assert [model["loss_config"][key] for key in ("class_weights", "label_smoothing")] == [None, None]


def test_no_validation_keeps_the_last_epoch(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.limit_val_batches=0")]
    main(line)
    assert load(tmp_path / "run/version_0/checkpoints/best.ckpt")["epoch"] == 1
    assert "evaluating the last one" in capsys.readouterr().err
    stopping = "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: validation_loss}}"
    code, message = fails([*line, f"--trainer.callbacks=[{stopping}]"], capsys)
    assert code == 2
    assert "no metric is called 'validation_loss', for trainer.limit_val_batches is 0" in message


def test_values_of_epochs_without_validation_stay_empty(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=2"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    table = pd.read_csv(tmp_path / "run/version_0/metrics.csv")
    assert table["validation_loss"].notna().tolist() == [False, True, False, True]
    assert load(tmp_path / "run/version_0/checkpoints/best.ckpt")["epoch"] in {1, 3}


@pytest.mark.parametrize("option", ["max_epochs", "max_steps", "limit_train_batches"])
def test_nothing_to_train_is_refused(
    option: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.{option}=0")], capsys)
    assert (code, message) == (2, f"imgcls: trainer.{option} must be above 0, got 0")
    assert not (tmp_path / "run").exists()


def test_wrong_argument_of_the_trainer_leaves_no_folder(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.val_check_interval=1.5")]
    code, message = fails(line, capsys)
    assert code == 2
    assert "val_check_interval" in message
    assert not (tmp_path / "run").exists()


def test_finished_run_says_what_to_raise(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main(line)
    checkpoint = tmp_path / "run/version_0/checkpoints/last.ckpt"
    code, message = fails([*line, f"--ckpt_path={checkpoint}"], capsys)
    reason = f"Training of {checkpoint} is already complete (2 of 2 epochs); to continue: --trainer.max_epochs N"
    assert (code, message) == (2, f"imgcls: {reason}")
    assert [path.name for path in checkpoint.parents[2].iterdir()] == ["version_0"]
    main([*line, "--ckpt_path=last"])  # in place: reported, and evaluated again
    output = capsys.readouterr()
    assert output.err.splitlines()[-1] == reason
    assert "Files in the run folder: checkpoints/best.ckpt, config.yaml, data.json," in output.err
    assert output.out.splitlines()[-1] == str(tmp_path / "run/version_0")
    written = (tmp_path / "run/version_0/config.yaml").read_text()
    main([*line, "--ckpt_path=last", "--trainer.max_epochs=1", "--model.loss_config.focal_gamma=2"])
    assert "already complete (2 of 1 epochs)" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "run/version_0/metrics.csv")) == 2
    assert (tmp_path / "run/version_0/config.yaml").read_text() == written  # with another, nothing was trained


def test_last_is_of_a_run_and_never_behind_the_best(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Someone copied a run, first in place of it without the times, then beside it."""
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main(line)
    checkpoints = tmp_path / "run/version_0/checkpoints"
    os.utime(checkpoints / "last.ckpt", (1, 1))
    shutil.copytree(tmp_path / "run/version_0", tmp_path / "run/version_0_backup")
    capsys.readouterr()
    main([*line, "--ckpt_path=last"])
    assert f"Resuming from {checkpoints / 'last.ckpt'} after epoch 2" in capsys.readouterr().err


def test_two_fits_do_not_share_a_folder(
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgcls.checkpoints.run_folder._PATIENCE", 0.1)
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main(line)
    with FileLock(tmp_path / "run/version_0/.lock"):
        code, message = fails([*line, "--ckpt_path=last", "--trainer.max_epochs=3"], capsys)
    assert code == 2
    assert f"{tmp_path / 'run/version_0'}: another process trains in this folder" in message


def test_flag_and_list_that_disagree_are_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint}"
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{saver}]")]
    code, message = fails([*line, "--trainer.enable_checkpointing=false"], capsys)
    assert code == 2
    assert "trainer: Trainer was configured with `enable_checkpointing=False` but found `ModelCheckpoint`" in message
    assert not (tmp_path / "run").exists()


def test_without_checkpoints_the_last_weights_are_evaluated(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--trainer.enable_checkpointing=false", "--trainer.precision=32"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    output = capsys.readouterr()
    assert "No checkpoint is kept, as configured: evaluating the last weights" in output.err
    last = pd.read_csv(tmp_path / "run/version_0/metrics.csv")["validation_loss"].iloc[-1]
    assert table_of(output.out)["loss"] == [f"{last:.4f}"]
    assert not (tmp_path / "run/version_0/checkpoints").exists()


def test_a_saver_of_the_user_brings_ours(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    saver = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint}"
    more = ["--experiment.default_callbacks=false", f"--trainer.callbacks=[{saver}]"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    names = {path.name for path in (tmp_path / "run/version_0/checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "epoch=1-step=12.ckpt"}


@pytest.mark.parametrize("seed", ["false", "-1", str(2**32)])
def test_unusable_seed_is_refused(
    seed: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--seed_everything={seed}")], capsys)
    assert code == 2
    assert message.startswith("imgcls: seed_everything must be a number from 0 to 4294967295")
    assert message.lower().endswith(f"got {seed}")


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_folder_name_is_no_path(
    name: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path), f"--experiment.custom_folder_name={name}"]
    code, message = fails(line, capsys)
    assert code == 2
    assert f"experiment.custom_folder_name must be the name of a folder, got {name!r}" in message


def test_evaluation_computes_in_the_precision_of_the_training(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.precision=32-true")])
    trained = table_of(capsys.readouterr().out)
    checkpoint = tmp_path / "run/version_0/checkpoints/best.ckpt"
    assert load(checkpoint)["imgcls"]["precision"] == "32-true"
    monkeypatch.setattr("imgcls.commands.trainer.best_precision", lambda _: "bf16-mixed")
    main(["validate", f"--ckpt_path={checkpoint}"])
    assert table_of(capsys.readouterr().out) == trained


def test_options_of_the_model_are_refused_in_an_evaluation(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    line = ["validate", f"--ckpt_path={tmp_path / 'run/version_0/checkpoints/best.ckpt'}"]
    code, message = fails([*line, "--model.freeze_encoder=true"], capsys)
    assert code == 2
    assert "leave --model.freeze_encoder out" in message
    code, message = fails([*line, "--data.class_names=[a, b, c]"], capsys)
    assert code == 2
    assert "data.init_args.class_names" in message
    (tmp_path / "other.yaml").write_text(json.dumps({"model": {"model_name": "microsoft/resnet-50"}}))
    code, message = fails([*line, f"--config={tmp_path / 'other.yaml'}"], capsys)
    assert code == 2
    assert "'microsoft/resnet-50'" in message
    assert f"differs from {str(tiny_model)!r}" in message


def test_two_processes_train_into_one_folder(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.precision=32"]
    done = program("fit", *arguments(photos, tiny_model, tmp_path, *more), env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["version_0"]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run/version_0")
    table = pd.read_csv(tmp_path / "run/version_0/metrics.csv")
    assert table["epoch"].tolist() == [0, 1]
    assert table["step"].tolist() == [3, 6]  # 48 images, 8 a batch, two processes


@pytest.mark.parametrize("precision", ["bf16-true", "64"])
def test_weights_of_another_dtype(
    precision: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path), f"--trainer.precision={precision}"])
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    dtypes = {value.dtype for value in content["current_model_state"].values() if value.is_floating_point()}
    assert {"bf16-true": torch.bfloat16, "64": torch.float64}[precision] in dtypes
    assert "accuracy" in table_of(capsys.readouterr().out)


def test_fit_says_what_it_trains_on(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [f"--data.dataset_classes.test={test_photos}", "--trainer.max_epochs=1"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    said = capsys.readouterr().err.splitlines()
    assert "3 classes: 'blue', 'green', 'red'" in said
    assert "Images: 48 train, 12 validation (20 % held out of train), 18 test" in said


def test_folder_of_splits_is_read_as_its_splits(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, source in {"train": photos, "val": test_photos, "test": test_photos}.items():
        shutil.copytree(source, tmp_path / "data" / split)
    (tmp_path / "c.yaml").write_text(f"data: {{dataset_classes: {{train: {tmp_path}/data}}}}\n")
    _, *options = arguments(photos, tiny_model, tmp_path, "--data.on_leak=warn", "--trainer.max_epochs=1")
    main(["fit", f"{tmp_path}/c.yaml", *options])
    captured = capsys.readouterr()
    assert f"{tmp_path}/data: test/ is test, train/ is train, val/ is validation" in captured.err
    assert "Images: 60 train, 18 validation, 18 test" in captured.err
    config = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert config["data"]["init_args"]["dataset_classes"] == {
        "train": f"{tmp_path}/data/train",
        "validation": f"{tmp_path}/data/val",
        "test": f"{tmp_path}/data/test",
        "predict": None,
    }
    fitted = table_of(captured.out)
    main(["test", f"{tmp_path}/run/version_0"])
    assert table_of(capsys.readouterr().out)["accuracy"] == fitted["accuracy"][-1:]
    main(["test", f"{tmp_path}/run/version_0", f"{tmp_path}/data"])
    assert table_of(capsys.readouterr().out)["accuracy"] == fitted["accuracy"][-1:]
    main(["fit", f"{tmp_path}/c.yaml", *options, "--trainer.max_epochs=2", "--ckpt_path=last"])
    assert "Resuming from" in capsys.readouterr().err


def test_patience_of_the_default_early_stopping(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    kept = tmp_path / "run/version_0/checkpoints/last.ckpt"
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--experiment.patience=3")]
    main(line)
    [state] = [value for key, value in load(kept)["callbacks"].items() if key.startswith("EarlyStopping")]
    assert state["patience"] == 3
    main([*line, "--ckpt_path=last", "--trainer.max_epochs=2", "--experiment.patience=null"])
    assert [key for key in load(kept)["callbacks"] if key.startswith("EarlyStopping")] == []


def test_wrong_augmentation_leaves_no_run_folder(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = "[{class_path: albumentations.Resize, init_args: {height: 32, wide: 32}}]"
    code, message = fails(
        ["fit", *arguments(photos, tiny_model, tmp_path, f"--data.augmentations.train={steps}")], capsys
    )
    assert (code, "wide" in message) == (2, True), message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model.loss_config.class_weights=auto", "--data.balanced_sampling=true"], "count twice"),
        (["--model.freeze_encoder=true"], "random features"),
    ],
)
def test_options_that_hardly_go_together(
    more: list[str], said: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, "--trainer.fast_dev_run=true")])
    assert said in capsys.readouterr().err


def test_class_without_an_image_to_validate(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "data")
    (tmp_path / "data/odd").mkdir()
    shutil.copy(photos / "red/000.png", tmp_path / "data/odd/1.png")
    (tmp_path / "data/red/000.png").unlink()
    main(["fit", *arguments(tmp_path / "data", tiny_model, tmp_path, "--trainer.max_epochs=1")])
    assert "validation has no image of 'odd': train has too few to hold one out" in capsys.readouterr().err


def test_saver_must_not_take_the_names_of_the_runs_own_files(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = "{class_path: ModelCheckpoint, init_args: {filename: best, monitor: train_loss}}"
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{saver}]")], capsys)
    assert (code, "filename: best would overwrite the run's own best.ckpt" in message) == (2, True), message
    saver = "{class_path: ModelCheckpoint, init_args: {save_last: true, every_n_train_steps: 2}}"
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{saver}]")], capsys)
    assert (code, "save_last: True would overwrite" in message) == (2, True), message


def test_metric_that_decides_says_which_way_is_better(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = '{"spread": {"class_path": "tests.helpers.own.Spread"}}'
    logger = f'{{"class_path": "imgcls.MetricsLogger", "init_args": {{"metrics": {metrics}}}}}'
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    code, message = fails([*line, f"--trainer.callbacks=[{logger}]"], capsys)
    assert (code, "validation_spread decides which epoch is best" in message) == (2, True), message
    saver = '{"class_path": "ModelCheckpoint", "init_args": {"monitor": "validation_spread", "mode": "min"}}'
    main([*line, f"--trainer.callbacks=[{logger}, {saver}]", "--experiment.monitor=validation_spread"])
    scores = pd.read_csv(tmp_path / "run/version_0/metrics.csv")["validation_spread"]
    assert f"validation_spread {scores.min():.4f}" in capsys.readouterr().err


def test_configuration_that_is_printed_is_the_whole(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = '[{"class_path": "EarlyStopping", "init_args": {"monitor": "validation_loss"}}]'
    more = [f"--trainer.callbacks={stopping}", "--trainer.callbacks.0.init_args.patience=9", "--print_config"]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "--print_config does not show --trainer.callbacks.0.init_args.patience" in message) == (2, True)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (
            ["--trainer.strategy=ddp_spawn"],
            "trainer.strategy: ddp_spawn leaves the trained weights in processes that",
        ),
        (["--trainer.strategy=fsdp"], "trainer.strategy: fsdp shards the weights"),
        (
            ["--trainer.plugins=AsyncCheckpointIO"],
            "trainer.plugins: AsyncCheckpointIO would replace the writer",
        ),
        (["--trainer.max_steps=9", "--trainer.min_epochs=5"], "trainer.min_epochs: 5 and trainer.max_steps: 9"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches must be at least 1, got 0"),
        (["--trainer.accumulate_grad_batches=-1"], "trainer.accumulate_grad_batches must be at least 1, got -1"),
        (["--trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch must be at least 1, got 0"),
        (["--trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be at least 0, got -1"),
        (["--trainer.val_check_interval=0"], "trainer.val_check_interval must be above 0, got 0"),
        (["--trainer.default_root_dir=out"], "trainer.default_root_dir: out has no effect; set experiment.output_dir"),
        (["--trainer.callbacks=[imgcls.EMA, null]"], "trainer.callbacks: None is no Callback; give a mapping"),
    ],
)
def test_what_lightning_takes_and_a_run_cannot_is_refused(
    more: list[str],
    named: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, named in message) == (2, True), message
    assert not (tmp_path / "run").exists()


def test_precision_of_a_plugin_is_used(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    plugin = "{class_path: lightning.pytorch.plugins.MixedPrecision, init_args: {precision: bf16-mixed, device: cpu}}"
    main(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.plugins=[{plugin}]", "--trainer.max_epochs=1")])
    assert load(tmp_path / "run/version_0/checkpoints/last.ckpt")["imgcls"]["precision"] == "bf16-mixed"


def test_more_batches_between_validations_than_there_are(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.val_check_interval=1000")]
    code, message = fails(line, capsys)
    assert (code, "trainer: `val_check_interval` (1000) must be less than" in message) == (2, True), message


def test_steps_that_are_not_reached_are_told_of(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_steps=900")])
    assert "after 12 of max_steps: 900; to reach them, set max_epochs: -1" in capsys.readouterr().err


def test_run_that_lightning_would_not_stop_early_goes_on(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = "{class_path: EarlyStopping, init_args: {monitor: validation_loss, patience: 1, min_delta: 1000}}"
    line = ["fit", *arguments(photos, tiny_model, tmp_path), f"--trainer.callbacks=[{stopping}]"]
    main([*line, "--trainer.max_epochs=3", "--trainer.min_epochs=3"])
    capsys.readouterr()
    main([*line, "--trainer.max_epochs=5", "--trainer.min_epochs=5", "--ckpt_path=last"])
    assert "was stopped early" not in capsys.readouterr().err
    assert len((tmp_path / "run/version_0/metrics.csv").read_text().splitlines()) == 6


def test_norms_that_are_more_are_not_made_plain_ones(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    model = tmp_path / "model"
    TimmWrapperConfig(architecture="efficientnet_lite0", num_labels=3).save_pretrained(model)
    code, message = fails(["fit", *arguments(photos, model, tmp_path, "--trainer.sync_batchnorm=true")], capsys)
    assert (code, "remove the activations of this network's BatchNormAct2d" in message) == (2, True), message


def test_no_step_is_logged(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.log_every_n_steps=0", "--trainer.max_epochs=1")])
    assert (tmp_path / "run/version_0/checkpoints/last.ckpt").exists()


def test_weights_alone_are_no_run_to_go_on_with(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_weights_only: true}}"
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, f"--trainer.callbacks=[{saver}]"])
    [weights] = (tmp_path / "run/version_0/checkpoints").glob("epoch*.ckpt")
    capsys.readouterr()
    main(["validate", f"--ckpt_path={weights}"])
    assert "accuracy" in table_of(capsys.readouterr().out)
    code, message = fails([*line, f"--ckpt_path={weights}", "--trainer.max_epochs=3"], capsys)
    assert (code, "add --experiment.only_weights_load true" in message) == (2, True)
    main([*line, f"--ckpt_path={weights}", "--experiment.only_weights_load=true"])
    assert "loaded" in capsys.readouterr().err


def test_early_stopped_run_is_at_its_end(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = (
        "{class_path: lightning.pytorch.callbacks.EarlyStopping, "
        "init_args: {monitor: validation_loss, patience: 1, min_delta: 1000}}"
    )
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=9")]
    main([*line, f"--trainer.callbacks=[{stopping}]"])
    folder = tmp_path / "run/version_0"
    output = capsys.readouterr()
    before, figures = (folder / "metrics.csv").read_text(), table_of(output.out)
    assert len(before.splitlines()) == 3
    assert "Stopped early: validation_loss did not improve for 1 validations" in output.err
    main([*line, f"--trainer.callbacks=[{stopping}]", "--ckpt_path=last"])
    output = capsys.readouterr()
    assert "last.ckpt was stopped early after 2 epochs" in output.err
    assert table_of(output.out) == figures
    assert (folder / "metrics.csv").read_text() == before


def test_patience_that_is_typed_wins_over_the_checkpoint(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning's early stopping takes that of the checkpoint."""
    stopping = (
        "{class_path: lightning.pytorch.callbacks.EarlyStopping, "
        "init_args: {monitor: validation_loss, min_delta: 1000, patience: "
    )
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=5")]
    main([*line, f"--trainer.callbacks=[{stopping}1}}}}]"])
    folder = tmp_path / "run/version_0"
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    main([*line, f"--trainer.callbacks=[{stopping}3}}}}]", "--ckpt_path=last"])
    assert len((folder / "metrics.csv").read_text().splitlines()) == 5
    assert "Stopped early: validation_loss did not improve for 3 validations" in capsys.readouterr().err
    main([*line, f"--trainer.callbacks=[{stopping}9}}}}]", "--ckpt_path=last"])
    assert len((folder / "metrics.csv").read_text().splitlines()) == 6
    assert "topped early" not in capsys.readouterr().err


def test_results_of_a_former_end_do_not_outlive_it(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    results = tmp_path / "run/version_0/results.json"
    assert results.exists()
    code, message = fails(
        [*line, "--trainer.max_epochs=2", "--ckpt_path=last", "--trainer.callbacks=[tests.helpers.own.CtrlC]"], capsys
    )
    assert (code, "run/version_0/config.yaml --ckpt_path last" in message) == (130, True)
    assert not results.exists()


def test_drawn_seeds_differ_and_are_written_down(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    stop = "--trainer.callbacks=[{class_path: tests.helpers.killer.StopAfter, init_args: {epochs: 1}}]"
    line = ["fit", *arguments(photos, tiny_model, tmp_path, stop, "--seed_everything=true")]
    main(line)
    main(line)
    seeds = [yaml.safe_load((tmp_path / f"run/version_{n}/config.yaml").read_text())["seed_everything"] for n in (0, 1)]
    assert all(isinstance(seed, int) for seed in seeds)
    assert seeds[0] != seeds[1]
    main([*line, "--ckpt_path=last"])  # goes on with its own
    assert yaml.safe_load((tmp_path / "run/version_1/config.yaml").read_text())["seed_everything"] == seeds[1]
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole", f"--seed_everything={seeds[1]}")])
    last = "run/version_{}/checkpoints/last.ckpt"
    assert_same_weights(tmp_path / last.format(1), tmp_path / "whole" / last.format(0))


def test_classes_of_the_working_directory_are_found(tiny_model: Path, tmp_path: Path) -> None:
    """By the installed program, which does not look there by itself."""
    shutil.copy(Path(own.__file__), tmp_path / "mine.py")
    line = [item for item in arguments(Path("unused"), tiny_model, tmp_path) if "dataset_classes" not in item]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("imgcls"),
            "fit",
            *line,
            "--data.dataset_classes.train={class_path: mine.Squares}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_class_of_ours_by_its_long_name_is_the_same(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    table = os.path.relpath(tmp_path / "t.csv")
    spec = json.dumps({"class_path": "imgcls.datasets.csv_dataset.CsvImageDataset", "init_args": {"csv": table}})
    line = arguments(photos, tiny_model, tmp_path, f"--data.dataset_classes.train={spec}", "--trainer.max_epochs=1")
    main(["fit", *line])
    saved = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    kept = saved["data"]["init_args"]["dataset_classes"]["train"]
    assert (kept["class_path"], kept["init_args"]["csv"]) == ("imgcls.CsvImageDataset", str(tmp_path / "t.csv"))


def test_long_name_without_arguments_is_known_to_the_checkpoint(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = "{class_path: imgcls.datasets.digits.DigitsDataset}"
    more = [f"--data.dataset_classes.train={spec}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    main(["fit", *arguments(Path("unused"), tiny_model, tmp_path, *more)])
    main(["validate", f"--ckpt_path={tmp_path / 'run/version_0/checkpoints/best.ckpt'}"])
    assert "your class" not in capsys.readouterr().err


def test_model_class_of_ones_own_needs_no_model_name(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_MODEL", str(tiny_model))
    line = [item for item in arguments(photos, tiny_model, tmp_path) if not item.startswith("--model")]
    main(["fit", *line, "--model=tests.helpers.own.Fixed", "--trainer.max_epochs=1"])
    folder = tmp_path / "run/version_0"
    main(["validate", f"--ckpt_path={folder}/checkpoints/best.ckpt", f"--config={folder}/config.yaml"])


def test_null_within_a_dataset_on_the_command_line_is_null(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    given = {"csv": str(tmp_path / "t.csv"), "label_separator": None}
    spec = json.dumps({"class_path": "imgcls.CsvImageDataset", "init_args": given})
    line = arguments(photos, tiny_model, tmp_path, f"--data.dataset_classes.train={spec}", "--trainer.max_epochs=1")
    main(["fit", *line])
    saved = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert saved["data"]["init_args"]["dataset_classes"]["train"]["init_args"]["label_separator"] is None


@pytest.mark.parametrize("null", ["null", "None"])
def test_null_on_the_command_line_takes_a_dataset_away(
    null: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(f"data: {{dataset_classes: {{test: {photos}}}}}")
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", f"--data.dataset_classes.test={null}")
    main(["fit", f"--config={tmp_path / 'c.yaml'}", *line])
    assert len(table_of(capsys.readouterr().out)["loss"]) == 1
    saved = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert saved["data"]["init_args"]["dataset_classes"]["test"] is None
