"""The moving average of the weights."""

import signal
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from transformers import TimmWrapperConfig

from imgcls import EMA
from imgcls.cli.main import main
from tests.helpers.runs import arguments, assert_same_weights, fails, load, program, table_of, weights

AVERAGED = "{class_path: imgcls.EMA, init_args: {decay: 0.9}}"
KEPT = "lightning.pytorch.callbacks.ModelCheckpoint"
RECORDER = "{class_path: tests.callbacks.test_ema.Recorder}"
KILLER = "{class_path: tests.helpers.killer.Killer, init_args: {epoch: 2, batch: 3}}"


class Recorder(Callback):
    """Averages by itself, one tensor at a time."""

    average: ClassVar[dict[str, torch.Tensor]] = {}
    steps = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Recorder.steps = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        Recorder.steps += 1
        kept = min(0.9, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
        for name, value in pl_module.state_dict().items():
            old = self.average.get(name, value)
            self.average[name] = kept * old + (1 - kept) * value if value.is_floating_point() else value.clone()


class MidValidation(Callback):
    """Saves right before a validation and within it, as SLURM's handler of signals does.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / "before.ckpt")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / "within.ckpt")


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_checkpoint_within_a_validation_is_that_of_before(
    precision: str, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    saver = "{class_path: tests.callbacks.test_ema.MidValidation, init_args: {folder: " + str(tmp_path) + "}}"
    more = [f"--trainer.precision={precision}", f"--trainer.callbacks=[{AVERAGED}, {saver}]"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, "--trainer.num_sanity_val_steps=1")])
    before, within = load(tmp_path / "before.ckpt"), load(tmp_path / "within.ckpt")
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert before[key].keys() == within[key].keys()
        for name, value in before[key].items():
            assert torch.equal(value, within[key][name]), (key, name)
            assert value.dtype == within[key][name].dtype
    average = before["state_dict"]
    assert any(not torch.equal(average[name], value) for name, value in before["current_model_state"].items())


def test_checkpoints_hold_the_average(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{AVERAGED}, {RECORDER}]")])
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    assert Recorder.steps == 12
    for name, value in content["state_dict"].items():
        torch.testing.assert_close(value, Recorder.average[name], rtol=1e-4, atol=1e-5)
    current = content["current_model_state"]
    assert any(not torch.equal(current[name], value) for name, value in content["state_dict"].items())


def test_the_average_is_validated_and_evaluated(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{AVERAGED}]")])
    output = capsys.readouterr().out
    folder = Path(output.splitlines()[-1])
    main(["validate", f"--ckpt_path={folder}/checkpoints/best.ckpt", "--data.num_workers=0"])
    assert table_of(capsys.readouterr().out) == table_of(output)
    best = load(folder / "checkpoints/best.ckpt")["callbacks"]
    [score] = [state["best_score"] for name, state in best.items() if name.startswith("CheckpointSaver")]
    assert f"{score:.4f}" == table_of(output)["f1_score"][0]


def test_average_is_resumed_bit_for_bit(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=4"]
    averaged = [f"--trainer.callbacks=[{AVERAGED}]"]
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole", *more, *averaged)])
    line = arguments(photos, tiny_model, tmp_path / "killed", *more)
    killed = program("fit", *line, f"--trainer.callbacks=[{AVERAGED}, {KILLER}]")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    main(["fit", *line, *averaged, "--ckpt_path=last"])
    last = "run/version_0/checkpoints/last.ckpt"
    assert_same_weights(tmp_path / "whole" / last, tmp_path / "killed" / last)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_average_of_other_dtypes(precision: str, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = [f"--trainer.precision={precision}", f"--trainer.callbacks=[{AVERAGED}]"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    kept = [value for value in content["state_dict"].values() if value.is_floating_point()]
    assert {value.dtype for value in kept} == {torch.float32 if precision == "bf16-true" else torch.float64}
    assert any((value != value.bfloat16()).any() for value in kept)  # a validation did not round it
    current = content["current_model_state"]
    assert any(not torch.equal(current[name].to(value.dtype), value) for name, value in content["state_dict"].items())
    assert pd.read_csv(tmp_path / "run/version_0/metrics.csv")["validation_f1_score"].iloc[-1] > 0.5


def test_every_fit_averages_unless_it_says_otherwise(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    listed = "--trainer.callbacks={class_path: imgcls.EMA, init_args: {decay: 0.999}}"
    nothing = "--trainer.callbacks={class_path: imgcls.EMA, init_args: {decay: 0}}"
    saver = (
        "{class_path: ModelCheckpoint, init_args: {save_weights_only: true, dirpath: " + str(tmp_path / "mine") + "}}"
    )
    for more in ([], [listed], [nothing], [f"--trainer.callbacks={saver}"]):
        main([*line, *more])
    default, average, plain, alone = (tmp_path / f"run/version_{n}/checkpoints/last.ckpt" for n in range(4))
    assert_same_weights(default, average)
    assert_same_weights(plain, alone)
    assert "averaging_state" not in load(alone)
    assert any(not torch.equal(value, weights(plain)[name]) for name, value in weights(default).items())
    assert "no imgcls.EMA: a ModelCheckpoint with save_weights_only" in capsys.readouterr().err


def test_run_that_did_not_average_goes_on_without(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1", "--experiment.default_callbacks=false", f"--trainer.callbacks={KEPT}"])
    main([*line, "--ckpt_path=last"])
    assert "averaging_state" not in load(tmp_path / "run/version_0/checkpoints/last.ckpt")


def test_layers_that_learn_later_are_averaged_from_then_on(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=2", "--model.freeze_encoder=true", "--model.unfreeze={1: 0.0}"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, f"--trainer.callbacks=[{AVERAGED}, {RECORDER}]")])
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    for name, value in content["state_dict"].items():
        torch.testing.assert_close(value, Recorder.average[name], rtol=1e-4, atol=1e-5)


def test_saving_the_other_weights_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = "{class_path: ModelCheckpoint, init_args: {save_weights_only: true}}"
    line = arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{AVERAGED}, {saver}]")
    code, message = fails(["fit", *line], capsys)
    assert code == 2
    assert "save_weights_only: true would save the weights that are not averaged" in message
    assert not tmp_path.joinpath("run").exists()


def test_other_averages_are_those_of_the_best_checkpoint(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "[{class_path: lightning.pytorch.callbacks.EMAWeightAveraging, init_args: {decay: 0.5}}]"
    more = [f"--trainer.callbacks={other}", "--experiment.monitor=validation_loss"]
    line = ["fit", *arguments(photos, tiny_model, tmp_path, *more)]
    main([*line, "--trainer.max_epochs=1"])
    main([*line, "--trainer.max_epochs=3", "--model.optimizer_config.lr=0.01", "--ckpt_path=last"])
    table = table_of(capsys.readouterr().out)
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    current = content["current_model_state"]
    assert any(not torch.equal(current[name], value) for name, value in content["state_dict"].items())
    main(["validate", f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt", "--data.num_workers=0"])
    assert table_of(capsys.readouterr().out) == table


def test_average_that_no_checkpoint_holds_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = (
        "{class_path: lightning.pytorch.callbacks.StochasticWeightAveraging, init_args: {swa_lrs: 0.01, device: null}}"
    )
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={other}")], capsys)
    assert (code, "use imgcls.EMA" in message) == (2, True), message


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_has_a_range(decay: float) -> None:
    with pytest.raises(ValueError, match=r"imgcls\.EMA: decay must be at least 0 and below 1, got"):
        EMA(decay)


@pytest.mark.parametrize(
    "more", [(), ("--trainer.precision=bf16-true",), ("--model.freeze_encoder=true", "--model.feature_views=2")]
)
def test_buffers_that_a_forward_pass_replaces_are_left_alone(
    more: tuple[str, ...], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ConViT makes ``rel_indices``, which no checkpoint keeps, in the size of its first images."""
    pytest.importorskip("timm")
    small = {"img_size": 32, "embed_dim": 12, "depth": 2, "num_heads": 2, "local_up_to_layer": 1}
    config = TimmWrapperConfig(architecture="convit_tiny", num_labels=3, model_args=small)
    config.pretrained_cfg = {"input_size": [3, 32, 32]}
    config.save_pretrained(tmp_path / "model")
    main(["fit", *arguments(photos, tmp_path / "model", tmp_path, f"--trainer.callbacks=[{AVERAGED}]", *more)])
    output = capsys.readouterr().out
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    assert not [name for name in content["state_dict"] if name.endswith("rel_indices")]
    current = content["current_model_state"]
    assert any(not torch.equal(current[name].to(value.dtype), value) for name, value in content["state_dict"].items())
    main(["validate", f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt", "--data.num_workers=0"])
    assert table_of(capsys.readouterr().out)["f1_score"][0] == table_of(output)["f1_score"][0]
