"""F28: a loss, or weights, that are not finite end the run at that step, and never reach a checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoModelForImageClassification

from imgcls.callbacks import terminate_on_nan
from imgcls.callbacks.terminate_on_nan import TerminateOnNaN
from imgcls.cli.main import main
from imgcls.errors import RunError
from tests.helpers.architectures import tiny_config
from tests.helpers.runs import arguments, fails, load, program

STEPS = 6  # of an epoch: 48 images in batches of 8


class InfinitePixel(Callback):
    """Gives one image of a batch a pixel that is infinite.

    Args:
        epoch: The epoch, from 0.
        batch: The batch, from 0.
        rank: The process.
    """

    path = ""

    def __init__(self, epoch: int, batch: int, rank: int = 0) -> None:
        self.place = (epoch, batch, rank)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == self.place:
            batch["image"] = batch["image"] / 255
            batch["image"][3, 0, 5, 5] = torch.inf
            InfinitePixel.path = batch["path"][3]


def infinite_pixel(epoch: int, batch: int, rank: int = 0) -> str:
    arguments = {"epoch": epoch, "batch": batch, "rank": rank}
    return json.dumps({"class_path": "tests.callbacks.test_terminate_on_nan.InfinitePixel", "init_args": arguments})


def assert_finite(folder: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        content = load(folder / "checkpoints" / name)
        for key in ("state_dict", "current_model_state"):
            assert all(value.isfinite().all() for value in content[key].values()), (name, key)


def test_step_rate_and_file_are_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    tiny_config("vit").save_pretrained(model)  # without BatchNorm, which spreads it over the batch
    line = ["fit", *arguments(photos, model, tmp_path, "--model.scheduler_config.name=constant")]
    main([*line, "--trainer.max_epochs=1"])
    callbacks = f"--trainer.callbacks={infinite_pixel(1, 2)}"
    code, message = fails([*line, "--trainer.max_epochs=3", "--ckpt_path=last", callbacks], capsys)
    folder = tmp_path / "run/version_0"
    assert code == 1
    found = f"epoch 2, step {STEPS + 3}: the loss is not finite (nan) at the learning rate 0.01, in the batch of "
    assert f"{found}'{InfinitePixel.path}'; {folder}/checkpoints/last.ckpt holds the last finite weights" in message
    assert "train_loss" not in message
    assert_finite(folder)


def test_all_files_of_the_batch_are_named_where_batch_norm_spreads_it(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={infinite_pixel(0, 2)}")]
    code, message = fails(line, capsys)
    assert (code, "epoch 1, step 3: the loss is not finite (nan)" in message) == (1, True), message
    assert message.count(".png'") == 8
    assert f"'{InfinitePixel.path}'" in message
    assert "no checkpoint is saved yet. Set trainer.gradient_clip_val: 1.0" in message
    assert list((tmp_path / "run/version_0/checkpoints").glob("*.ckpt")) == []


def test_a_rate_far_too_high_ends_the_run_within_the_epoch(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model.optimizer_config={name: sgd, lr: 1e30}", "--model.scheduler_config={name: constant}"]
    more += ["--trainer.limit_val_batches=0"]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "epoch 1, step 2: the loss is not finite" in message) == (1, True), message
    assert "at the learning rate 2.85714e+29" in message


def test_weights_that_break_after_the_loss_are_seen_at_the_epochs_end(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=0"]
    more += ["--trainer.callbacks={class_path: tests.helpers.killer.Faulty, init_args: {kind: weights}}"]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "epoch 1, step 2: the weights are not finite" in message) == (1, True), message
    assert list((tmp_path / "run/version_0/checkpoints").glob("*.ckpt")) == []


def test_fast_dev_run_says_it_too(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [f"--trainer.callbacks={infinite_pixel(0, 0)}", "--trainer.fast_dev_run=true"]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "epoch 1, step 1: the loss is not finite" in message) == (1, True), message


class Copied:
    """Stands in for the event after a copy from a GPU."""

    waited = 0

    def synchronize(self) -> None:
        Copied.waited += 1


def test_loss_of_a_gpu_is_looked_at_a_step_later(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminate_on_nan, "start_copy", lambda loss: (loss, Copied()))
    Copied.waited = 0
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={infinite_pixel(0, 2)}")]
    code, message = fails(line, capsys)
    assert (code, "epoch 1, step 3: the loss is not finite (nan)" in message) == (1, True), message
    assert Copied.waited == 3
    assert f"'{InfinitePixel.path}'" in message
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={infinite_pixel(0, STEPS - 1)}")]
    code, message = fails(line, capsys)  # before the validation and the checkpoint
    assert (code, f"epoch 1, step {STEPS}: the loss is not finite (nan)" in message) == (1, True), message


def test_a_gradient_scaler_may_skip_ten_steps_in_a_row() -> None:
    trainer: Any = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=object()),
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        current_epoch=0,
        global_step=7,
        checkpoint_callbacks=[],
        lightning_module=SimpleNamespace(lr=0.1),
    )
    watch = TerminateOnNaN()

    def step(loss: float) -> None:
        outputs = {"batch_loss": torch.tensor(loss), "logits": torch.zeros(1, 3)}
        watch.on_train_batch_start(trainer, None, {}, 0)  # type: ignore[arg-type]
        watch.on_train_batch_end(trainer, None, outputs, {"path": ["a.png"]}, 0)  # type: ignore[arg-type]

    for _ in range(2):
        for _ in range(10):
            step(torch.inf)
        step(0.5)
    for _ in range(10):
        step(torch.nan)
    with pytest.raises(RunError, match=r"step 7: the loss is not finite \(nan\) at the learning rate 0.1"):
        step(torch.nan)


def test_pretrained_weights_that_are_not_finite_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = AutoModelForImageClassification.from_config(tiny_config("resnet"))
    network.resnet.encoder.stages[1].layers[0].shortcut.convolution.weight.data[0] = torch.nan
    network.save_pretrained(tmp_path / "model")
    line = ["fit", *arguments(photos, tmp_path / "model", tmp_path, "--model.pretrained=true")]
    code, message = fails(line, capsys)
    assert (code, "model: weights are not finite in 1 of " in message) == (2, True), message
    assert "encoder.stages.1.layers.0.shortcut.convolution.weight'; use other weights" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [(), ("--experiment.only_weights_load=true",)])
def test_checkpoint_that_is_not_finite_is_no_start(
    more: tuple[str, ...], photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    next(value for name, value in content["state_dict"].items() if name.endswith("weight")).fill_(torch.nan)
    torch.save(content, tmp_path / "broken.ckpt")
    code, message = fails([*line, f"--ckpt_path={tmp_path}/broken.ckpt", *more], capsys)
    assert (code, f"{tmp_path}/broken.ckpt: weights are not finite in 1 of " in message) == (2, True), message


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_processes_ends_both(rank: int, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.max_epochs=1"]
    more += [f"--trainer.callbacks={infinite_pixel(0, 1, rank)}"]
    found = program("fit", *arguments(photos, tiny_model, tmp_path, *more), timeout=300)
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    assert "the loss is not finite (nan)" in found.stderr
    assert list((tmp_path / "run/version_0/checkpoints").glob("*.ckpt")) == []
