"""How a run ends, which of its epochs is the best, and what follows when it goes on from there."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from imgcls.callbacks.terminate_on_nan import is_finite
from imgcls.cli.main import main
from tests.helpers.runs import arguments, assert_same_weights, fails, load, table_of

STEPS = 6  # of an epoch: 48 images in batches of 8
AS_EVALUATED = ["--trainer.precision=32", "--experiment.calibrate=false"]  # trains as it evaluates at the end


def early_stopping(**options: object) -> str:
    return json.dumps([{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": options}])


def test_run_counted_in_steps_goes_on_after_its_epoch(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=null", "--model.scheduler_config={name: constant, warmup_epochs: 0}"]
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole", *more, f"--trainer.max_steps={3 * STEPS}")])
    line = ["fit", *arguments(photos, tiny_model, tmp_path / "parts", *more)]
    main([*line, f"--trainer.max_steps={STEPS}"])
    main([*line, f"--trainer.max_steps={3 * STEPS}", "--ckpt_path=last"])
    whole, parts = tmp_path / "whole/run/version_0", tmp_path / "parts/run/version_0"
    assert_same_weights(whole / "checkpoints/last.ckpt", parts / "checkpoints/last.ckpt")
    tables = [pd.read_csv(folder / "metrics.csv") for folder in (whole, parts)]
    assert list(tables[0]["step"]) == [STEPS, 2 * STEPS, 3 * STEPS]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)


def test_steps_end_within_an_epoch_that_is_validated(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, f"--trainer.max_steps={STEPS + 2}"])
    folder = tmp_path / "run/version_0"
    table = pd.read_csv(folder / "metrics.csv")
    assert list(table["step"]) == [STEPS, STEPS + 2]
    assert table["validation_loss"].notna().all()
    [schedule] = load(folder / "checkpoints/last.ckpt")["lr_schedulers"]
    assert schedule["_last_lr"] == pytest.approx([0] * len(schedule["_last_lr"]), abs=1e-9)


def test_broken_weights_are_seen_before_a_validation_within_the_epoch(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = "--trainer.callbacks={class_path: tests.helpers.killer.Faulty, init_args: {kind: weights}}"
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.val_check_interval=2", broken)]
    code, message = fails(line, capsys)
    assert (code, "epoch 1, step 2: the weights are not finite" in message) == (1, True), message
    assert list((tmp_path / "run/version_0/checkpoints").glob("*.ckpt")) == []


def test_broken_weights_are_not_saved_within_an_epoch(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"class_path": "tests.helpers.killer.Faulty", "init_args": {"kind": "weights"}}
    saver = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 2, "save_top_k": -1}}
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={json.dumps([broken, saver])}")]
    code, message = fails(line, capsys)
    assert (code, "epoch 1, step 2: the weights are not finite" in message) == (1, True), message
    assert list((tmp_path / "run/version_0/checkpoints").glob("*.ckpt")) == []


def test_last_epoch_is_the_best_where_none_is_validated(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.check_val_every_n_epoch=3")])
    folder = tmp_path / "run/version_0/checkpoints"
    assert (folder / "best.ckpt").samefile(folder / "last.ckpt")


def test_fit_whose_outputs_are_no_numbers_fails(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model.optimizer_config={name: sgd, lr: 1e18}", "--model.scheduler_config.warmup_epochs=0"]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "not finite" in message or "are not finite" in message) == (1, True), message


def test_results_are_kept_where_their_table_cannot_be_printed(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(results: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("imgcls.commands.command.print_results", closed)
    with pytest.raises(SystemExit):
        main(["fit", *arguments(photos, tiny_model, tmp_path)])
    results = json.loads((tmp_path / "run/version_0/results.json").read_text(encoding="utf-8"))
    assert 0 <= results["validation_accuracy"] <= 1


def test_lowest_loss_is_best_without_validation(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=3", "--trainer.limit_val_batches=0", "--experiment.monitor=train_loss"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    folder = tmp_path / "run/version_0"
    best = load(folder / "checkpoints/best.ckpt")
    assert best["epoch"] == pd.read_csv(folder / "metrics.csv")["train_loss"].idxmin()
    assert "EarlyStopping{'monitor': 'train_loss', 'mode': 'min'}" in best["callbacks"]


def test_best_of_an_epochs_several_validations_is_kept(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.val_check_interval=0.34", "--trainer.max_epochs=3", "--model.optimizer_config.lr=0.05"]
    line = [
        "fit",
        *arguments(photos, tiny_model, tmp_path, "--experiment.monitor=validation_loss", *more, *AS_EVALUATED),
    ]
    main(line)
    folder = tmp_path / "run/version_0"
    state = load(folder / "checkpoints/last.ckpt")["callbacks"]["CheckpointSaver"]
    results = json.loads((folder / "results.json").read_text())
    assert results["validation_loss"] == pytest.approx(state["best_score"], rel=1e-5)
    assert state["best_score"] <= pd.read_csv(folder / "metrics.csv")["validation_loss"].min() + 1e-9
    best = {name: value for name, value in results.items() if name.startswith("validation_")}
    assert state["best_values"] == pytest.approx(best, rel=1e-5)
    main([*line, "--trainer.max_epochs=2", "--experiment.monitor=train_loss"])  # is known at an epoch's end alone
    folder = tmp_path / "run/version_1"
    best = load(folder / "checkpoints/best.ckpt")
    assert best["epoch"] == pd.read_csv(folder / "metrics.csv")["train_loss"].idxmin()


def test_callbacks_wait_for_values_of_a_whole_epoch(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    kept = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {monitor: train_loss, save_top_k: 2}}"
    stopping = "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: train_loss}}"
    more = [f"--trainer.callbacks=[{kept}, {stopping}]", "--trainer.val_check_interval=0.5"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert len(list((tmp_path / "run/version_0/checkpoints").glob("epoch=*.ckpt"))) == 2


@pytest.mark.parametrize(
    ("option", "expected"), [("--trainer.val_check_interval=0.5", 20), ("--trainer.check_val_every_n_epoch=2", 5)]
)
def test_patience_is_ten_epochs_however_often_they_are_validated(
    option: str, expected: int, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, option)])
    callbacks = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["callbacks"]
    [patience] = [state["patience"] for name, state in callbacks.items() if name.startswith("EarlyStopping")]
    assert patience == expected


@pytest.mark.parametrize("more", ["--trainer.check_val_every_n_epoch=2", "--trainer.val_check_interval=0.5"])
def test_a_run_goes_on_from_behind_the_last_batch_of_an_epoch(
    more: str, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"save_top_k": -1, "filename": "mine-{step}"}
    kept = json.dumps({"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": options})
    line = ["fit", *arguments(photos, tiny_model, tmp_path, more, f"--trainer.callbacks={kept}")]
    main([*line, "--trainer.max_epochs=2"])
    [checkpoint] = (tmp_path / "run/version_0/checkpoints").glob("mine-step=12.ckpt")
    main([*line, "--trainer.max_epochs=4", f"--ckpt_path={checkpoint}"])
    before, table = (pd.read_csv(tmp_path / f"run/version_{number}/metrics.csv") for number in (0, 1))
    assert list(table["epoch"]) == [0, 1, 2, 3]
    # no batch of epoch 1 was left; what the metrics had seen of it is in the checkpoint
    assert list(table["train_loss"][:2]) == list(before["train_loss"])
    assert table["train_loss"].notna().all()


@pytest.mark.parametrize("name", ["ModelCheckpoint", "EarlyStopping"])
def test_mode_that_keeps_the_worst_is_refused(
    name: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = f"{{class_path: lightning.pytorch.callbacks.{name}, init_args: {{monitor: validation_accuracy}}}}"
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={callback}")], capsys)
    assert (code, f"{name}: monitor: validation_accuracy, mode: min" in message) == (2, True), message
    assert "set mode: max" in message


def test_max_time_beside_a_timer_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timer = "[{class_path: lightning.pytorch.callbacks.Timer, init_args: {duration: {seconds: 1}}}]"
    more = ["--trainer.max_time.seconds=1", f"--trainer.callbacks={timer}"]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "trainer.max_time has no effect beside Timer" in message) == (2, True), message


@pytest.mark.parametrize("key", ["trainer.max_time", "the duration of Timer"])
def test_time_that_is_over_is_said(
    key: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"monitor": "validation_f1_score", "mode": "max", "patience": 1000}  # a fast machine runs out of 10
    callbacks = [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": options}]
    limits = ["--trainer.max_epochs=1000"]
    if key == "trainer.max_time":
        limits.append("--trainer.max_time.seconds=1")
    else:
        timer = {"duration": {"seconds": 1}}
        callbacks.append({"class_path": "lightning.pytorch.callbacks.Timer", "init_args": timer})
    line = ["fit", *arguments(photos, tiny_model, tmp_path, *limits, f"--trainer.callbacks={callbacks}")]
    main(line)
    output = capsys.readouterr()
    assert f"Stopped: {key} is over" in output.err
    main([*line, "--ckpt_path=last"])
    again = capsys.readouterr()
    assert f"already complete ({key}" in again.err
    assert table_of(again.out) == table_of(output.out)


def test_clock_without_a_limit_ends_nothing(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.callbacks=Timer")])
    assert "max_time" not in capsys.readouterr().err
    timer = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())["trainer"]["callbacks"]
    assert timer["init_args"]["interval"] == "step"  # its own default, which is an enum


def test_threshold_that_is_reached_is_said(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"monitor": "validation_loss", "stopping_threshold": 100.0}
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={early_stopping(**options)}")]
    main(line)
    assert "Stopped early: Stopping threshold reached: validation_loss" in capsys.readouterr().err
    main([*line, "--ckpt_path=last"])
    assert "reached EarlyStopping.stopping_threshold: 100.0" in capsys.readouterr().err
    other = early_stopping(**options | {"stopping_threshold": 1e-9})
    main([*line, f"--trainer.callbacks={other}", "--ckpt_path=last"])
    assert "stopped" not in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "run/version_0/metrics.csv")) == 2


def test_run_killed_between_its_two_files_has_the_right_best_one(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.limit_val_batches=0")]
    main([*line, "--trainer.max_epochs=1"])
    checkpoints = tmp_path / "run/version_0/checkpoints"
    shutil.copy(checkpoints / "last.ckpt", tmp_path / "first.ckpt")
    main([*line, "--ckpt_path=last"])
    os.replace(tmp_path / "first.ckpt", checkpoints / "best.ckpt")
    os.utime(checkpoints / "best.ckpt", (0, 0))
    main([*line, "--ckpt_path=last"])
    assert load(checkpoints / "best.ckpt")["epoch"] == 1
    capsys.readouterr()


def test_another_monitor_at_the_end_evaluates_the_last_epoch(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=3", *AS_EVALUATED)]
    main(line)
    capsys.readouterr()
    main([*line, "--experiment.monitor=validation_loss", "--ckpt_path=last"])
    output = capsys.readouterr()
    assert "No best epoch by validation_loss: evaluating the last one" in output.err
    last = pd.read_csv(tmp_path / "run/version_0/metrics.csv").iloc[-1]
    assert table_of(output.out)["loss"] == [f"{last['validation_loss']:.4f}"]


def test_weights_in_16_bits_are_finite_however_long() -> None:
    model = torch.nn.Linear(300, 300).half()
    model.weight.data.fill_(1e3)
    assert torch.nn.utils.get_total_norm(model.parameters()).isinf()  # which alone must not end a run
    assert is_finite(model)
    model.weight.data[0, 0] = torch.inf
    assert not is_finite(model)
