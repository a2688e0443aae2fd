"""Runs whose disk is full, or whose folder is removed: one line that names the file, and the former files stay."""

import os
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from imgcls.callbacks.prediction_writer import PredictionsWriter
from imgcls.checkpoints.io import read_checkpoint
from imgcls.cli.main import main
from imgcls.commands.run_logger import RunLogger
from imgcls.errors import FullDiskError
from imgcls.predictions.prediction_file import PredictionFile
from tests.helpers.killer import fill
from tests.helpers.runs import arguments, fails, program

SEARCH = """
optuna:
  n_trials: 3
  search_spaces: {model.init_args.optimizer_config.lr: {distribution: loguniform, low: 1.0e-4, high: 1.0e-2}}
"""
SMALL = pytest.mark.parametrize("small_disk", [1_500_000], indirect=True)


def line(command: str, photos: Path, model: Path, out: Path, *more: str) -> list[str]:
    return [command, *arguments(photos, model, out, "--trainer.max_epochs=3", *more)]


def harm(name: str) -> str:
    return f"--trainer.callbacks=[{{class_path: tests.helpers.killer.{name}, init_args: {{epoch: 1}}}}]"


@SMALL
def test_a_full_disk_ends_a_fit_with_its_name_and_keeps_the_checkpoints(
    photos: Path, tiny_model: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "runs"
    code, said = fails(line("fit", photos, tiny_model, out, harm("FillDisk")), capsys)
    assert code == 1
    assert said.startswith(f"imgcls: {out}/run/version_0/")
    assert "the disk is full (No space left on device)" in said
    assert "0.0 MB are free; make room there" in said
    run = out / "run/version_0"
    assert read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] == 0
    assert [path.name for path in run.rglob(".*.partial")] == []
    (run / "filler").unlink()
    main(line("fit", photos, tiny_model, out, "--ckpt_path=last"))
    assert read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] == 2


def test_a_checkpoint_that_does_not_fit_says_how_much_it_needs(
    photos: Path, tiny_model: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (tiny_model / "config.json").read_text().replace("[8, 16, 16]", "[32, 64, 128]")
    (small_disk / "config.json").write_text(text)
    code, said = fails(line("fit", photos, small_disk, small_disk / "runs"), capsys)
    assert code == 1
    assert "checkpoints/last.ckpt: the disk is full (" in said
    needed = float(said.split("it needs ")[1].split(" MB")[0])
    assert 2 < needed < 6
    assert re.search(r"0\.[123] MB are free; make room there$", said)  # of 0.3 MB; schema.json takes 0.12


@SMALL
def test_a_full_disk_ends_a_search_with_one_line(
    photos: Path, tiny_model: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tune.yaml").write_text(SEARCH)
    command = line("tune", photos, tiny_model, small_disk, harm("FillDisk"), f"--config={tmp_path / 'tune.yaml'}")
    code, said = fails(command, capsys)
    assert code == 1
    assert str(small_disk / "run/tune") in said
    assert "disk is full" in said
    assert "0.0 MB are free" in said


def test_a_full_disk_ends_a_prediction_within_a_batch(small_disk: Path) -> None:
    writer = PredictionsWriter(PredictionFile(small_disk / "p.csv", ["a", "b"], None), None, {}, 1001)
    trainer, batch = _Trainer(), {"path": ["x.png"], "error": [""]}
    writer.on_predict_start(trainer, pl.LightningModule())  # type: ignore[arg-type]
    writer.on_predict_batch_end(trainer, None, torch.tensor([[0.25, 0.75]]), batch, 0)  # type: ignore[arg-type]
    many = {"path": ["x.png"] * 1000, "error": [""] * 1000}
    writer.on_predict_batch_end(trainer, None, torch.full((1000, 2), 0.5), many, 1)  # type: ignore[arg-type]
    fill(small_disk)
    message = rf"{small_disk}/p\.csv: the disk is full \(.*\): it needs 0\.0 MB, 0\.0 MB are free"
    with pytest.raises(FullDiskError, match=message) as caught:
        writer.on_predict_end(trainer, None)  # type: ignore[arg-type]  # writes the last batch
    writer.on_exception(trainer, None, caught.value)  # type: ignore[arg-type]
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


class _Trainer:
    world_size, global_rank, is_global_zero = 1, 0, True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # raised again by the main thread
def test_curves_on_a_full_disk_are_named(small_disk: Path) -> None:
    logger = RunLogger(small_disk, "run", 0)
    logger.log_metrics({"loss": 1.0}, 0)
    fill(small_disk)
    with pytest.raises(FullDiskError, match=r"run/version_0/events\.out\.tfevents: the disk is full .* are free; make"):
        _log_much(logger)
    logger.finalize("failed")


def _log_much(logger: RunLogger) -> None:
    for step in range(2000):
        logger.log_metrics({"loss": 1.0}, step)
    logger.save()


def test_a_run_folder_that_is_removed_is_one_line(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = program(*line("fit", photos, tiny_model, tmp_path, harm("RemoveRun")))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"imgcls: {tmp_path}/run/version_0/")
    assert said.endswith("cannot be written (No such file or directory)")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8 whatever the locale")
def test_a_locale_of_ascii_alone_says_what_to_set(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "\u00e4").symlink_to(photos)
    ascii_alone = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = line("fit", tmp_path / "\u00e4", tiny_model, tmp_path)
    done = program(*command, env=ascii_alone)
    assert done.returncode == 2
    assert "this locale knows ASCII alone; set PYTHONUTF8=1" in done.stderr
    command += ["--trainer.fast_dev_run=true"]
    assert program(*command, env=ascii_alone | {"PYTHONUTF8": "1"}).returncode == 0
