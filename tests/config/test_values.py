"""Values that a configuration may not hold, and options that reach the data, through the real entry point."""

import errno
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from imgcls.cli.main import main
from imgcls.errors import ConfigError
from imgcls.models.training.optimizer import OptimizerConfig
from imgcls.models.training.scheduler import SchedulerConfig
from imgcls.predictions.prediction_file import PredictionFile
from imgcls.runtime.output_file import check_output
from imgcls.types import Batch
from tests.helpers.runs import arguments, assert_same_weights, fails, program

OPTIMIZER, SCHEDULER = "model.init_args.optimizer_config", "model.init_args.scheduler_config"
SGD = "--model.optimizer_config.name=sgd"

WRONG = {
    "--data.num_workers=-1": "data.init_args.num_workers must be at least 0, or null, got -1",
    "--data.split_seed=-1": "data.init_args.split_seed must be between 0 and 4294967295, got -1",
    "--data.class_names=[red, green, red]": "data.init_args.class_names must be unique, got 'red' twice",
    "--data.class_names=[red, '']": "data.init_args.class_names[1] must not be blank, got ''",
    "--data.dataset_classes.train.init_args.max_pixels=0": (
        "data.init_args.dataset_classes.train.init_args.max_pixels must be at least 1, got 0"
    ),
    "--model.optimizer_config.lr=.nan": f"{OPTIMIZER}.lr must be a finite number, got nan",
    "--model.optimizer_config.lr=.inf": f"{OPTIMIZER}.lr must be a finite number, got inf",
    "--model.optimizer_config.weight_decay=-1": f"{OPTIMIZER}.weight_decay must be at least 0, got -1.0",
    "--model.optimizer_config.betas=[0.9, 1]": f"{OPTIMIZER}.betas must be at least 0 and less than 1, got (0.9, 1.0)",
    "--model.optimizer_config.eps=0": f"{OPTIMIZER}.eps must be greater than 0, got 0.0",
    f"{SGD} --model.optimizer_config.momentum=-1": f"{OPTIMIZER}.momentum must be at least 0, got -1.0",
    f"{SGD} --model.optimizer_config.nesterov=true": f"{OPTIMIZER}.nesterov: true requires",
    "--model.scheduler_config.warmup_epochs=-1": f"{SCHEDULER}.warmup_epochs must be at least 0, got -1.0",
}


@pytest.mark.parametrize("given", WRONG)
def test_fit_refuses_a_wrong_value_by_its_key(
    given: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = "--data.dataset_classes.train=imgcls.FolderImageDataset"
    root = f"--data.dataset_classes.train.init_args.root={photos}"
    options = [f"--{option}" for option in given.removeprefix("--").split(" --")]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path), dataset, root, *options], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: {WRONG[given]}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9])
def test_optimizer_and_schedule_refuse_numbers_that_are_none(value: float) -> None:
    for name in ("lr", "weight_decay", "eps"):
        with pytest.raises(ValueError, match=rf"optimizer_config\n{name}\n"):
            OptimizerConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="betas"):
        OptimizerConfig(betas=(value, 0.9))
    with pytest.raises(ValueError, match=r"scheduler_config\nwarmup_epochs\n"):
        SchedulerConfig(warmup_epochs=value)


def test_optimizer_and_schedule_take_the_ends_of_their_ranges() -> None:
    OptimizerConfig(weight_decay=0, betas=(0, 0))
    OptimizerConfig("sgd", 0.1, momentum=0, nesterov=False)
    OptimizerConfig("sgd", 0.1, momentum=0.9, nesterov=True)
    SchedulerConfig(warmup_epochs=0)


# -- overfit_batches


class Seen(Callback):
    """Notes the images and pixels of each training and validation batch."""

    batches: ClassVar[dict[tuple[str, int, int], Batch]] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, number: int) -> None:
        self.batches["train", trainer.current_epoch, number] = batch

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, number: int, loader: int = 0
    ) -> None:
        self.batches["validation", trainer.current_epoch, number] = batch


def test_overfit_batches_gives_the_same_batches_in_every_epoch(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Seen.batches.clear()
    more = ["--trainer.overfit_batches=2", f"--trainer.callbacks=[{{class_path: {__name__}.Seen}}]"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert "shuffling" not in capsys.readouterr().err
    # of the evaluation at the end too, which goes by the same limit
    assert set(Seen.batches) >= {(s, e, b) for s, e in (("train", 0), ("train", 1), ("validation", 0)) for b in (0, 1)}
    assert {number for _, _, number in Seen.batches} == {0, 1}
    first, second = ([Seen.batches["train", epoch, number] for number in (0, 1)] for epoch in (0, 1))
    for one, other in zip(first, second, strict=True):
        assert one["path"] == other["path"]
        assert torch.equal(one["image"], other["image"])
    assert len({path for batch in first for path in batch["path"]}) == 16
    assert {label for batch in first for label in batch["label"].tolist()} == {0, 1, 2}
    assert len(pd.read_csv(tmp_path / "run/version_0/metrics.csv")) == 2


def test_overfit_batches_goes_on_as_the_uninterrupted_run(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.overfit_batches=5", "--trainer.max_epochs=4"]
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole", *more)])
    line = arguments(photos, tiny_model, tmp_path / "killed", *more)
    killed = program(
        "fit", *line, "--trainer.callbacks=[{class_path: tests.helpers.killer.Killer, init_args: {epoch: 2, batch: 3}}]"
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    main(["fit", *line, "--ckpt_path=last"])
    whole, resumed = (tmp_path / name / "run/version_0/checkpoints/last.ckpt" for name in ("whole", "killed"))
    assert_same_weights(whole, resumed)


# -- the labels of a checkpoint


def test_resume_refuses_an_image_in_another_class(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "data")
    line = ["fit", *arguments(tmp_path / "data", tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    (tmp_path / "data/red/000.png").rename(tmp_path / "data/blue/moved.png")
    code, message = fails([*line, "--ckpt_path=last"], capsys)
    assert code == 2
    assert f"0 new or changed [], 0 missing, 1 in another class ['{tmp_path}/data/blue/moved.png']; restore" in message


def test_resume_with_copies_on_both_sides_is_the_uninterrupted_run(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "data")
    for path in sorted((tmp_path / "data/red").iterdir()):
        shutil.copy(path, path.with_stem(f"copy{path.stem}"))
    constant = ["--model.scheduler_config.name=constant", "--model.scheduler_config.warmup_epochs=0"]
    for name, epochs in (("whole", ["2"]), ("parts", ["1", "2"])):
        line = ["fit", *arguments(tmp_path / "data", tiny_model, tmp_path / name, *constant)]
        main([*line, f"--trainer.max_epochs={epochs[0]}"])
        for more in epochs[1:]:
            main([*line, f"--trainer.max_epochs={more}", "--ckpt_path=last"])
    whole, parts = (tmp_path / name / "run/version_0" for name in ("whole", "parts"))
    assert_same_weights(whole / "checkpoints/last.ckpt", parts / "checkpoints/last.ckpt")
    assert (whole / "splits.csv").read_text() == (parts / "splits.csv").read_text()


# -- the output of predict


def test_check_output_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    check_output(tmp_path / "new/folder/p.csv")
    assert list((tmp_path / "new/folder").iterdir()) == []
    (tmp_path / "old.csv").write_text("kept")
    check_output(tmp_path / "old.csv")
    assert (tmp_path / "old.csv").read_text() == "kept"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("folder", "is a folder; give a file, for example {}/folder/predictions.csv"),
        ("later/", "is a folder; give a file, for example {}/later/predictions.csv"),
        ("file/p.csv", "cannot write to the folder {}/file (File exists)"),
        ("file/deep/p.csv", "cannot write to the folder {}/file/deep (Not a directory)"),
        ("pipe", "is not a regular file"),
    ],
)
def test_check_output_refuses_what_cannot_be_written(output: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    given = f"{tmp_path}/{output}"
    with pytest.raises(ConfigError, match=re.escape(f"--output {given}: {message.format(tmp_path)}")):
        check_output(given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pipe"]


def test_check_output_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape("--output ~: is a folder; give a file, for example")):
        check_output("~")


def test_check_output_says_that_a_folder_is_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: Any) -> None:  # root may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ConfigError, match=rf"cannot write to the folder {tmp_path} \(Permission denied\)"):
        check_output(tmp_path / "p.csv")


def test_a_prediction_file_refuses_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output .*x\.csv: cannot be written: File name too long"):
        PredictionFile(tmp_path / f"{'x' * 300}.csv", ["a", "b"], None)
