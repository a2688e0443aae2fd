"""Lightning's LearningRateFinder and BatchSizeFinder: what they find is used, written down, and kept on resume."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  # whose log handler keeps the stderr of its import, and a test's is closed
import pytest
import yaml
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from imgcls.checkpoints.content import CONFIG_KEY
from imgcls.cli.main import main
from imgcls.models.training.losses import TrainingLoss
from tests.helpers.runs import arguments, assert_same_weights, fails, load

CALLBACKS = "lightning.pytorch.callbacks"
RATE = f"{{class_path: {CALLBACKS}.LearningRateFinder, init_args: {{num_training_steps: 20, min_lr: 1.0e-4}}}}"
SIZE = f"{{class_path: {CALLBACKS}.BatchSizeFinder, init_args: {{max_trials: 2, steps_per_trial: 1}}}}"
STOPPING = f"{{class_path: {CALLBACKS}.EarlyStopping, init_args: {{monitor: validation_loss}}}}"
CONSTANT = "--model.scheduler_config={name: constant, warmup_epochs: 0}"


def at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize(
    ("finder", "key", "option"),
    [
        (RATE, "model.init_args.optimizer_config.lr", "--model.optimizer_config.lr"),
        (SIZE, "data.init_args.batch_size", "--data.batch_size"),
    ],
)
def test_a_run_that_finds_is_the_run_that_is_given(
    finder: str,
    key: str,
    option: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    one = ("--trainer.max_epochs=1", CONSTANT)
    finds = ["fit", *arguments(photos, tiny_model, tmp_path / "finds", f"--trainer.callbacks=[{finder}, {STOPPING}]")]
    main([*finds, *one])
    name = finder.partition("callbacks.")[2].partition(",")[0]
    assert f", found by {name}" in capsys.readouterr().err
    folder = tmp_path / "finds/run/version_0"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    found = at(config, key)
    assert found != {"lr": 0.01, "batch_size": 8}[key.rpartition(".")[2]]
    assert [item["class_path"] for item in config["trainer"]["callbacks"]] == [f"{CALLBACKS}.EarlyStopping"]
    content = load(folder / "checkpoints/last.ckpt")
    assert at(json.loads(content[CONFIG_KEY]), key) == found
    section = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}[key.partition(".")[0]]
    assert at(content[section], key.partition("init_args.")[2]) == found
    assert [path for path in tmp_path.rglob("*") if "lr_find" in path.name or "scale_batch" in path.name] == []

    given = ["fit", *arguments(photos, tiny_model, tmp_path / "given", f"--trainer.callbacks=[{STOPPING}]")]
    given.append(f"{option}={found}")
    main([*given, *one])
    other = tmp_path / "given/run/version_0"
    assert_same_weights(folder / "checkpoints/last.ckpt", other / "checkpoints/last.ckpt")

    for line in (finds, given):
        capsys.readouterr()
        main([*line, "--ckpt_path=last", CONSTANT])
        said = capsys.readouterr().err
        assert "found by" not in said
        assert (f"{name}: skipped, the resumed run uses" in said) == (line is finds)
    assert_same_weights(folder / "checkpoints/last.ckpt", other / "checkpoints/last.ckpt")
    assert at(yaml.safe_load((folder / "config.yaml").read_text()), key) == found

    main(
        [
            "validate",
            f"--trainer.callbacks=[{finder}]",
            f"--ckpt_path={folder}/checkpoints/best.ckpt",
        ]
    )
    assert "found by" not in capsys.readouterr().err


def test_a_size_is_searched_for_images_though_features_are_trained_on(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model.freeze_encoder=true", "--trainer.max_epochs=1", f"--trainer.callbacks=[{SIZE}]"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    said = capsys.readouterr().err
    assert said.index("found by BatchSizeFinder") < said.index("features of train from ")
    assert said.count("features of train from ") == 1


def test_both_search_in_their_order(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [
            "fit",
            *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{SIZE}, {RATE}]", "--trainer.max_epochs=1"),
        ]
    )
    said = [line for line in capsys.readouterr().err.splitlines() if "found by" in line]
    assert [line.rpartition(" ")[2] for line in said] == ["BatchSizeFinder", "LearningRateFinder"]
    config = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert config["trainer"]["callbacks"] is None


def test_a_finder_by_the_name_of_its_module_is_left_out_of_the_configuration(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    rate = RATE.replace("callbacks.LearningRateFinder", "callbacks.lr_finder.LearningRateFinder")
    assert rate != RATE
    main(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{rate}]", "--trainer.max_epochs=1")])
    config = yaml.safe_load((tmp_path / "run/version_0/config.yaml").read_text())
    assert config["trainer"]["callbacks"] is None


def test_too_few_steps_show_no_rate(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = RATE.replace("20", "5")
    code, said = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{few}]")], capsys)
    assert code == 2
    assert "increase its num_training_steps" in said


@pytest.mark.parametrize(("finder", "key"), [(RATE, "model.init_args.optimizer_config.lr"), (SIZE, "batch_size")])
def test_several_devices_are_refused(
    finder: str, key: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = (f"--trainer.callbacks=[{finder}]", "--trainer.accelerator=cpu", "--trainer.devices=2")
    code, said = fails(["fit", *arguments(photos, tiny_model, tmp_path, *two)], capsys)
    assert code == 2
    assert "needs --trainer.devices 1" in said
    assert key in said
    assert not (tmp_path / "run").exists()


def test_no_search_in_a_trial_run(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [
            "fit",
            *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{RATE}]", "--trainer.fast_dev_run=true"),
        ]
    )
    assert "LearningRateFinder: skipped, because of trainer.fast_dev_run" in capsys.readouterr().err


def test_trials_have_no_finders(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "--optuna.search_spaces={model.init_args.optimizer_config.lr: {distribution: uniform, low: 0.1, high: 1}}"
    code, said = fails(
        ["tune", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{RATE}]", space)], capsys
    )
    assert code == 2
    assert "LearningRateFinder would overwrite model.init_args.optimizer_config.lr in each trial" in said


def test_the_search_minimises_what_the_run_does(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[object] = []
    loss = TrainingLoss.__call__

    def noted(self: TrainingLoss, logits: Tensor, target: Tensor) -> Tensor:
        weights.append(self.class_weights)
        return loss(self, logits, target)

    monkeypatch.setattr(TrainingLoss, "__call__", noted)
    more = [f"--trainer.callbacks=[{RATE}]", "--model.loss_config.class_weights=auto", "--trainer.max_epochs=1"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert len(weights) > 20  # the steps of the search, and of the run
    assert all(value is not None for value in weights)


def test_the_search_scales_the_rates_as_the_run_does(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    spans: list[float] = []

    def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        spans.append(max(rates) / min(rates))

    hook = register_optimizer_step_post_hook(note)
    more = [f"--trainer.callbacks=[{RATE}]", "--model.optimizer_config.layer_decay=0.5", "--trainer.max_epochs=1"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, CONSTANT)])
    hook.remove()
    assert len(spans) > 20  # the steps of the search, and of the run
    assert spans == pytest.approx([8] * len(spans))
