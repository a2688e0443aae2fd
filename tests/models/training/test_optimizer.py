"""Learning rates by block and by step."""

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from transformers import AutoModelForImageClassification, TimmWrapperConfig

from imgcls import ImageClassifier
from imgcls.cli.main import main
from imgcls.models.architecture import blocks
from imgcls.models.backbone import Backbone
from imgcls.models.training.optimizer import OptimizerConfig, Rates, choose_rates, make_optimizer
from imgcls.models.training.scheduler import SchedulerConfig, make_plateau, make_scheduler
from tests.helpers.architectures import tiny_config
from tests.helpers.runs import arguments, assert_same_weights, fails, load
from tests.models.huggingface.test_build import make_network


def save_random(model_type: str, folder: Path) -> Path:
    """Write a tiny network with weights, as a pretrained one lies there."""
    AutoModelForImageClassification.from_config(tiny_config(model_type)).save_pretrained(folder)
    return folder


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(shape)) for shape in shapes]


def test_each_block_learns_slower_than_the_one_behind_it() -> None:
    config = OptimizerConfig(head_multiplier=3.0)
    network = [parameters((2, 2), (2,)) for _ in range(4)]
    network[1][0].requires_grad_(False)
    rates = Rates(lr=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = make_optimizer(config, rates, network, {block[0] for block in network}).param_groups
    found = {(group["lr"], group["weight_decay"]): len(group["params"]) for group in groups}
    decayed, others = [0.25, 1.0, 3.0], [0.25, 0.5, 1.0, 3.0]
    assert found == dict.fromkeys([(rate, 0.1) for rate in decayed] + [(rate, 0.0) for rate in others], 1)


@pytest.mark.parametrize(
    ("model_type", "size", "undecayed"),
    [
        ("vit", 32, {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"}),
        ("clip", 32, {"vision_model.embeddings.position_embedding.weight"}),
        ("convnextv2", 32, {"convnextv2.encoder.stages.0.layers.0.grn.weight"}),  # (1, 1, 1, channels)
        ("levit", 64, {"levit.encoder.stages.0.layers.0.module.attention_biases"}),
        ("beit", 32, {"beit.layers.0.relative_position_bias.relative_position_bias_table"}),
    ],
)
def test_norms_tokens_and_positions_are_not_decayed(model_type: str, size: int, undecayed: set[str]) -> None:
    backbone = Backbone(make_network(model_type), (size, size))
    decayed = backbone.kernels()
    names = {name: parameter in decayed for name, parameter in backbone.network.named_parameters()}
    assert undecayed <= {name for name, is_decayed in names.items() if not is_decayed}
    layers = [module for module in backbone.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert {layer.weight for layer in layers} == decayed


def test_weights_of_recurrent_layers_are_decayed() -> None:
    network = make_network("timm_wrapper", architecture="sequencer2d_s")
    decayed = Backbone(network, (224, 224)).kernels()
    recurrent = [layer for layer in network.modules() if isinstance(layer, nn.LSTM)]
    assert recurrent
    assert {weights for layer in recurrent for weights in layer.parameters() if weights.ndim == 2} <= decayed


def test_rates_that_are_null_are_those_of_the_kind_of_network() -> None:
    null, given = OptimizerConfig(), OptimizerConfig("sgd", lr=0.1, layer_decay=0.9)
    assert choose_rates(null, batch_normalized=True, pretrained=True, block_count=8) == Rates(1e-3, 0.05, 0.9)
    assert choose_rates(null, batch_normalized=False, pretrained=True, block_count=4) == Rates(3e-4, 0.05, 0.75)
    assert choose_rates(null, batch_normalized=True, pretrained=False, block_count=8) == Rates(1e-3, 0.05, 1.0)
    assert choose_rates(null, batch_normalized=True, pretrained=True, block_count=1) == Rates(1e-3, 0.05, 1.0)
    assert choose_rates(given, batch_normalized=True, pretrained=True, block_count=8) == Rates(0.1, 1e-4, 0.9)
    with pytest.raises(ValueError, match=r"optimizer_config\.lr is required for 'sgd', for example 0\.01"):
        OptimizerConfig("sgd")


@pytest.mark.parametrize(("block_count", "batch_normalized"), [(9, False), (13, False), (55, False), (55, True)])
def test_first_block_of_many_learns_at_a_tenth(block_count: int, batch_normalized: bool) -> None:
    rates = choose_rates(OptimizerConfig(), batch_normalized, pretrained=True, block_count=block_count)
    assert rates.layer_decay >= (0.9 if batch_normalized else 0.75)
    network = [parameters((2, 2)) for _ in range(block_count + 1)]
    groups = make_optimizer(OptimizerConfig(), rates, network, set()).param_groups
    assert min(group["lr"] for group in groups) == pytest.approx(0.1 * rates.lr, rel=0.01)


@pytest.mark.parametrize(
    ("model_type", "lr", "decay"),
    [("resnet", 1e-3, 0.9), ("vit", 3e-4, 0.75), ("convnext", 3e-4, 0.75), ("regnet", 1e-3, 0.9)],
)
def test_a_rate_that_is_chosen_is_said(
    model_type: str, lr: float, decay: float, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_random(model_type, tmp_path / "model")
    line = [f"--data.dataset_classes.train={photos}", f"--model.model_name={model}", "--trainer.max_epochs=1"]
    more = [f"--experiment.output_dir={tmp_path}", "--experiment.custom_folder_name=run", "--data.num_workers=0"]
    main(["fit", *line, *more, "--model.scheduler_config.name=constant"])
    chosen = f"\nDefaults: lr {lr:g}, weight decay 0.05, layer decay {decay}, label smoothing 0.1\n"
    assert chosen in capsys.readouterr().err
    used = json.loads((tmp_path / "run/version_0/results.json").read_text())["run"]["defaults"]
    assert used == {
        "model.optimizer_config.lr": lr,
        "model.optimizer_config.weight_decay": 0.05,
        "model.optimizer_config.layer_decay": decay,
        "model.loss_config.label_smoothing": 0.1,
    }
    page = (tmp_path / "run/version_0/report.html").read_text(encoding="utf-8")
    assert chosen.strip().removeprefix("Defaults: ") in page
    [state] = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["optimizer_states"]
    rates = sorted({group["lr"] for group in state["param_groups"]})
    assert rates[-1] == lr
    assert rates[-2] == pytest.approx(decay * lr)


def test_blocks_are_what_is_numbered_first() -> None:
    layers = [
        ["stem.conv.weight"],
        ["stages.0.layers.0.weight", "stages.0.layers.0.bias"],
        ["stages.0.layers.1.weight"],
    ]
    layers += [["stages.1.layers.0.weight"], ["norm.weight"]]
    assert blocks(layers) == [layers[0], layers[1] + layers[2], layers[3] + layers[4]]


def test_numbered_layers_of_a_stem_are_no_blocks_but_those_of_a_plain_network_are() -> None:
    stem = [["stem.0.weight"], ["stem.1.weight", "stem.1.bias"]]
    stages = [["stages.0.gamma"], ["stages.0.conv.weight"], ["stages.1.conv.weight"]]
    assert blocks([*stem, *stages]) == [stem[0] + stem[1], stages[0] + stages[1], stages[2]]
    assert blocks(stem) == stem


def test_rates_of_a_fit_follow_the_blocks(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--model.optimizer_config.layer_decay=0.5", "--model.optimizer_config.head_multiplier=2"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, "--model.scheduler_config.name=constant")])
    [state] = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["optimizer_states"]
    assert sorted({group["lr"] for group in state["param_groups"]}) == [0.00125, 0.0025, 0.005, 0.01, 0.02]
    assert all(group["fused"] for group in state["param_groups"])


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_rate_to_lower_is_the_one_that_is_configured(
    schedule: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = "--trainer.callbacks={class_path: tests.helpers.killer.Faulty, init_args: {kind: not a number}}"
    more = ["--model.optimizer_config.head_multiplier=5", f"--model.scheduler_config.name={schedule}", broken]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, "a lower model.init_args.optimizer_config.lr (0.01)" in message) == (1, True), message


def test_another_division_of_the_parameters_is_no_run_to_go_on_with(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=3")
    main(["fit", *line, "--trainer.max_epochs=1"])
    code, message = fails(["fit", *line, "--model.optimizer_config.layer_decay=0.5", "--ckpt_path=last"], capsys)
    assert code == 2
    assert "the checkpoint's optimizer has other groups of parameters" in message
    last = tmp_path / "run/version_0/checkpoints/last.ckpt"
    fails(["fit", *line, "--model.freeze_encoder=0.5", f"--ckpt_path={last}"], capsys)
    assert [path.name for path in last.parent.parent.parent.iterdir()] == ["version_0"]
    main(["fit", *line, "--ckpt_path=last"])


def test_decay_by_layer_without_numbered_blocks_is_said_to_do_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    model = tmp_path / "model"
    TimmWrapperConfig(architecture="densenet121", num_labels=3).save_pretrained(model)
    more = ["--model.optimizer_config.layer_decay=0.5", "--trainer.fast_dev_run=true"]
    main(["fit", *arguments(photos, model, tmp_path, *more)])
    assert "optimizer_config.layer_decay has no effect" in capsys.readouterr().err


def test_gradients_are_clipped_under_mixed_precision(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.gradient_clip_val=0.1", "--trainer.precision=bf16-mixed"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, "--trainer.max_epochs=1")])
    [state] = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["optimizer_states"]
    assert not any(group["fused"] for group in state["param_groups"])


def rates(config: SchedulerConfig, steps: int = 10, per_epoch: float = 2) -> list[float]:
    optimizer = torch.optim.SGD(parameters((1,)), lr=1.0)
    scheduler = make_scheduler(config, optimizer, steps, per_epoch)
    found = []
    for _ in range(steps):
        found.append(round(optimizer.param_groups[0]["lr"], 3))
        optimizer.step()
        scheduler.step()
    return found


def test_schedules() -> None:
    assert rates(SchedulerConfig("constant")) == [0.333, 0.667] + [1] * 8
    assert rates(SchedulerConfig("cosine"), 6) == [0.333, 0.667, 1, 0.854, 0.5, 0.146]
    assert rates(SchedulerConfig("linear", warmup_epochs=0), 4) == [1, 0.75, 0.5, 0.25]
    assert (
        rates(SchedulerConfig("step", warmup_epochs=0, step_epochs=2, factor=0.5)) == [1] * 4 + [0.5] * 4 + [0.25] * 2
    )
    assert rates(SchedulerConfig("step", warmup_epochs=1))[:3] == [0.333, 0.667, 1]
    one_cycle = rates(SchedulerConfig("onecycle", warmup_epochs=2))
    assert (one_cycle[0], one_cycle[3], one_cycle[-1]) == (0.04, 1.0, 0.0)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "onecycle", "step"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_step_learns_also_where_an_epoch_has_one(name: Any, steps: int) -> None:
    found = rates(SchedulerConfig(name), steps, per_epoch=1)
    assert found[0] >= 0.04
    assert min(found[:-1], default=1) > 0  # one-cycle ends at 4e-6


class RatesOfSteps(Callback):
    """Writes down the rate of each step."""

    found: ClassVar[list[float]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.found.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))


def test_first_epoch_of_one_step_learns(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    RatesOfSteps.found.clear()
    more = ["--data.batch_size=64", f"--trainer.callbacks={{class_path: {__name__}.RatesOfSteps}}"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert RatesOfSteps.found == pytest.approx([0.005, 0.01])


def test_one_cycle_leaves_momentum_alone_and_may_begin_at_its_top() -> None:
    optimizer = torch.optim.SGD(parameters((1,)), lr=1.0, momentum=0.5)
    make_scheduler(SchedulerConfig("onecycle"), optimizer, 10, 2)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    for warmup_epochs in (0.0, 0.5):  # no step, and one, where torch's own divides by zero
        assert rates(SchedulerConfig("onecycle", warmup_epochs=warmup_epochs))[0] > 0.97


def test_long_warm_up_is_cut_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    assert rates(SchedulerConfig("linear", warmup_epochs=4)).index(1) == 5
    assert "warmup_epochs: limited to 5 steps, half of the run" in caplog.text


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        (["--trainer.max_epochs=3"], 18),
        (["--trainer.max_epochs=-1", "--trainer.max_steps=18"], 18),
        (["--trainer.max_epochs=20", "--trainer.max_steps=9"], 9),
    ],
)
def test_warm_up_is_an_epoch_however_the_end_is_given(
    more: list[str], steps: int, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    made: list[tuple[float, float]] = []

    def make(config: SchedulerConfig, optimizer: torch.optim.Optimizer, total: float, per_epoch: float) -> object:
        made.append((total, per_epoch))
        return make_scheduler(config, optimizer, total, per_epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgcls.models.training.optimized_module.make_scheduler", make)
        main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert made == [(steps, 6)]


def test_run_without_an_end(photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    endless = ["--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:02"]
    code, message = fails([*line, *endless], capsys)
    assert (code, "'cosine' requires a run with an end; set trainer.max_epochs or max_steps" in message) == (2, True), (
        message
    )
    main([*line, *endless, "--model.scheduler_config.name=constant"])


def test_plateau_waits_for_the_patience() -> None:
    optimizer = torch.optim.SGD(parameters((1,)), lr=1.0)
    plateau = make_plateau(SchedulerConfig("plateau", factor=0.5, patience=1), optimizer)
    found = []
    for loss in (1.0, 0.5, 0.5, 0.5, 0.4):
        plateau.step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 1, 0.5, 0.5]


def test_plateau_lowers_the_rate_alike_in_a_run_that_goes_on(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    # almost nothing is learnt; smaller rates than torch changes would not do
    still = ["--model.optimizer_config={name: sgd, lr: 1.0e-6}", "--model.freeze_encoder=true"]
    plateau = "--model.scheduler_config={name: plateau, patience: 0, factor: 0.5}"
    for name, epochs in (("whole", [4]), ("resumed", [2, 4])):
        line = ["fit", *arguments(photos, tiny_model, tmp_path / name, *still, plateau)]
        for number, last in enumerate(epochs):
            main([*line, f"--trainer.max_epochs={last}", *(["--ckpt_path=last"] if number else [])])
        [state] = load(tmp_path / name / "run/version_0/checkpoints/last.ckpt")["optimizer_states"]
        assert state["param_groups"][0]["lr"] == 1e-6 / 8
    last_files = (tmp_path / name / "run/version_0/checkpoints/last.ckpt" for name in ("whole", "resumed"))
    assert_same_weights(*last_files)


def test_plateau_of_a_checkpoint_is_not_that_of_another_fit(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    plateau = "--model.scheduler_config={name: plateau, patience: 0}"
    main(["fit", *arguments(photos, tiny_model, tmp_path, plateau)])
    path = tmp_path / "run/version_0/checkpoints/last.ckpt"
    model = ImageClassifier.load_from_checkpoint(path)
    assert load(path)["plateau_schedule"]["best"] < 10
    assert model.fit_hooks.plateau is None


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--experiment.default_callbacks=false", "'plateau' needs validation_loss"),
        ("--trainer.limit_val_batches=0", "'plateau' needs validations"),
    ],
)
def test_plateau_needs_what_it_waits_for(
    option: str, reason: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model.scheduler_config.name=plateau", option]
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *more)], capsys)
    assert (code, reason in message) == (2, True)


WRONG = {
    ("name=plateau", "warmup_epochs=1"): "does not apply to 'plateau'",
    ("name=cosine", "patience=1"): "patience applies only to plateau, not to 'cosine'",
    ("name=step", "factor=1"): "factor must be less than 1, got 1.0",
}


@pytest.mark.parametrize("given", WRONG)
def test_schedules_refuse_what_they_do_not_have(
    given: tuple[str, str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", str(photos), *(f"--model.scheduler_config.{option}" for option in given)], capsys)
    assert code == 2
    assert WRONG[given] in message


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_layer_decay_has_a_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"optimizer_config\nlayer_decay\n"):
        OptimizerConfig(layer_decay=value)
