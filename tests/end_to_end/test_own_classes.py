"""A user's own model, data, callbacks and loggers behave in a fit as Lightning documents them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from imgcls.cli.main import main
from tests.helpers.own_training import Hooks, MemoryLogger
from tests.helpers.runs import arguments, assert_same_weights, fails, load, table_of, weights

OWN = "tests.helpers.own_training"
DATA = {"single-label": "tests.helpers.own.Squares", "multi-label": f"{OWN}.ManySquares"}
LIGHTNING = "lightning.pytorch.callbacks"
FLOAT32 = "--trainer.precision=32"  # in which the end evaluates
RATES = {"model.init_args.optimizer_config.lr": {"distribution": "loguniform", "low": 0.001, "high": 0.1}}
SEARCH = [f"--optuna.search_spaces={json.dumps(RATES)}", "--optuna.n_trials=2"]

pytestmark = pytest.mark.parametrize("task", DATA)


def line(command: str, task: str, model: Path, out: Path, *more: str, own: str = "") -> list[str]:
    """The command line of a model class of the user's."""
    given = arguments(Path("unused"), model, out, *more)[1:]
    kind = [f"--model={OWN}.{own}"] if own else []
    return [command, *kind, f"--data.dataset_classes.train={{class_path: {DATA[task]}}}", *given]


def callback(class_path: str, **init_args: Any) -> str:
    return f"--trainer.callbacks+={json.dumps({'class_path': class_path, 'init_args': init_args})}"


def table(out: Path, version: int = 0) -> pd.DataFrame:
    return pd.read_csv(out / f"run/version_{version}/metrics.csv")


def last(out: Path, version: int = 0) -> Path:
    return out / f"run/version_{version}/checkpoints/last.ckpt"


def test_own_values_are_monitored(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = callback(
        f"{LIGHTNING}.ModelCheckpoint",
        monitor="validation_mine",
        mode="max",
        filename="{epoch}-{validation_mine:.4f}-{late_mine:.0f}",
        save_top_k=-1,
    )
    stopping = callback(f"{LIGHTNING}.EarlyStopping", monitor="train_mine", patience=1, min_delta=1000)
    main(line("fit", task, tiny_model, tmp_path, saver, stopping, "--trainer.max_epochs=5", FLOAT32, own="Logging"))
    rows = table(tmp_path)
    assert len(rows) == 2  # stopped early
    assert rows["late_mine"].tolist() == [0, 1]
    files = sorted(path.name for path in last(tmp_path).parent.glob("epoch=*"))
    expected = [f"epoch={n}-validation_mine={rows['validation_mine'][n]:.4f}-late_mine={n}.ckpt" for n in (0, 1)]
    assert files == expected
    output = capsys.readouterr()
    best = int(rows["validation_mine"].argmax())
    assert f"Best epoch: {best + 1}, validation_mine {rows['validation_mine'][best]:.4f}" in output.err
    assert float(table_of(output.out)["mine"][0]) == pytest.approx(rows["validation_mine"][best], abs=1e-4)


@pytest.mark.parametrize(("own", "name"), [("Logging", "late_mine"), ("", "callback_mine")])
def test_own_value_decides_which_epoch_is_best(
    own: str, name: str, task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [callback(f"{OWN}.LoggingCallback"), f"--experiment.monitor={name}", "--trainer.max_epochs=3"]
    main(line("fit", task, tiny_model, tmp_path, *more, own=own))
    error = capsys.readouterr().err
    assert f"{name} decides which epoch is best; mode max is assumed" in error
    best = load(last(tmp_path).with_name("best.ckpt"))
    assert best["epoch"] == table(tmp_path)[name].idxmax() == (2 if name == "late_mine" else 0)


def test_own_value_is_optimized(task: str, tiny_model: Path, tmp_path: Path) -> None:
    search = [*SEARCH, "--optuna.metric=validation_mine", "--optuna.direction=minimize"]
    main(line("tune", task, tiny_model, tmp_path, *search, "--trainer.max_epochs=2", own="Logging"))
    trials = pd.read_csv(tmp_path / "run/tune/trials.csv")
    assert trials["state"].tolist() == ["complete", "complete"]
    for folder, value in zip(trials["folder"], trials["validation_mine"], strict=True):
        assert value == pytest.approx(pd.read_csv(Path(folder, "metrics.csv"))["validation_mine"].min())


@pytest.mark.parametrize(
    ("option", "where"),
    [
        ("--experiment.monitor=validation_mien", "experiment.monitor"),
        (callback(f"{LIGHTNING}.EarlyStopping", monitor="validation_mien"), "EarlyStopping: monitor"),
        (callback(f"{LIGHTNING}.ModelCheckpoint", monitor="validation_mien"), "ModelCheckpoint: monitor"),
        (callback(f"{LIGHTNING}.ModelCheckpoint", filename="{epoch}-{validation_mien}"), "ModelCheckpoint: filename"),
    ],
)
def test_value_that_is_never_logged_ends_the_run_at_the_first_validation(
    option: str, where: str, task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(line("fit", task, tiny_model, tmp_path, option, own="Logging"), capsys)
    assert code == 2
    assert f"{where}: 'validation_mien' was not logged" in message
    assert "did you mean 'validation_mine'?" in message
    assert "validation_f1_score" in message
    assert not last(tmp_path).exists()
    code, message = fails(line("fit", task, tiny_model, tmp_path / "ours", option), capsys)  # before any step
    assert (code, f"{where}: no metric is called 'validation_mien'; did you mean" in message) == (2, True), message
    assert not (tmp_path / "ours").exists()


def test_search_for_a_value_that_is_never_logged_ends_at_the_first_trial(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*SEARCH, "--optuna.metric=validation_mien"]
    code, message = fails(line("tune", task, tiny_model, tmp_path, *more, own="Logging"), capsys)
    assert (code, "'validation_mien' was not logged" in message) == (2, True), message


def test_own_optimizer_keeps_the_loss_and_resumes(task: str, tiny_model: Path, tmp_path: Path) -> None:
    options = ["--model.mix_config.mixup=0.5", "--model.loss_config.class_weights=auto"]
    main(line("fit", task, tiny_model, tmp_path / "own", *options, own="OwnOptimizer"))
    same = "--model.optimizer_config={name: sgd, lr: 0.01, weight_decay: 0}"
    constant = "--model.scheduler_config={name: constant, warmup_epochs: 0}"
    main(line("fit", task, tiny_model, tmp_path / "ours", *options, same, constant))
    own, ours = (weights(last(tmp_path / name)) for name in ("own", "ours"))
    for name, value in ours.items():
        torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-5)
    for number, epochs in enumerate([1, 2]):
        more = [f"--trainer.max_epochs={epochs}", *(["--ckpt_path=last"] if number else [])]
        main(line("fit", task, tiny_model, tmp_path / "resumed", *options, *more, own="OwnOptimizer"))
    assert_same_weights(last(tmp_path / "own"), last(tmp_path / "resumed"))


@pytest.mark.filterwarnings("ignore:.*this fit will run with no optimizer")
@pytest.mark.parametrize("own", ["Scheduled", "NoOptimizer", "Manual"])
def test_own_ways_to_optimize(
    own: str, task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line("fit", task, tiny_model, tmp_path, own=own))
    assert table(tmp_path)["validation_f1_score"].notna().all()
    assert "lr 0" not in capsys.readouterr().err or own == "Manual"


def test_bare_loss(task: str, tiny_model: Path, tmp_path: Path) -> None:
    still = "--model.optimizer_config={name: sgd, lr: 1.0e-9}"
    for version, accumulated in enumerate([1, 2]):
        more = [still, f"--trainer.accumulate_grad_batches={accumulated}"]
        main(line("fit", task, tiny_model, tmp_path, *more, own="BareLoss"))
        rows = table(tmp_path, version)
        assert "train_f1_score" not in rows
        assert rows[["train_loss", "validation_f1_score"]].notna().all(axis=None)
    assert rows["train_loss"].tolist() == pytest.approx(table(tmp_path)["train_loss"].tolist(), rel=0.05)


def test_own_steps_get_images_although_the_encoder_is_frozen(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model.freeze_encoder=true", "--trainer.max_epochs=1"]
    main(line("fit", task, tiny_model, tmp_path, *more, own="BareLoss"))
    assert "BareLoss.training_step: feature cache off" in capsys.readouterr().err
    assert table(tmp_path)["train_loss"].notna().all()


def test_validation_step_that_returns_the_loss(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line("fit", task, tiny_model, tmp_path, own="TensorValidation"))
    rows = table(tmp_path)
    assert rows[["train_f1_score", "validation_loss"]].notna().all(axis=None)
    assert "validation_f1_score" not in rows
    said = capsys.readouterr().err
    assert "No best epoch by validation_f1_score" in said
    assert "No row per image and no scores of classes for validation: its step returns no 'logits'" in said
    assert not (last(tmp_path).parents[1] / "validation_predictions.csv").exists()
    main(line("fit", task, tiny_model, tmp_path, "--experiment.monitor=validation_loss", own="TensorValidation"))
    assert load(last(tmp_path, 1).with_name("best.ckpt"))["epoch"] == table(tmp_path, 1)["validation_loss"].idxmin()


def test_validation_step_that_returns_nothing(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line("fit", task, tiny_model, tmp_path, "--experiment.monitor=val_mine", FLOAT32, own="SilentValidation"))
    rows = table(tmp_path)
    assert rows[["train_f1_score", "val_mine"]].notna().all(axis=None)
    assert [name for name in rows if str(name).startswith("validation_")] == []
    assert load(last(tmp_path).with_name("best.ckpt"))["epoch"] == rows["val_mine"].idxmax()
    assert float(table_of(capsys.readouterr().out)["val_mine"][0]) == pytest.approx(rows["val_mine"].max(), abs=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "step", "plateau"])
def test_loaders_without_a_length(schedule: str, task: str, tiny_model: Path, tmp_path: Path) -> None:
    more = [f"--data={OWN}.Endless", f"--model.scheduler_config.name={schedule}"]
    given = line("fit", task, tiny_model, tmp_path, "--trainer.max_epochs=3")
    main([*given[:1], *more, *given[1:]])
    assert table(tmp_path)[["train_loss", "validation_f1_score"]].notna().all(axis=None)
    [optimizer] = load(last(tmp_path))["optimizer_states"]
    rate = optimizer["param_groups"][-1]["lr"]
    assert 0 <= rate < 0.01 if schedule == "cosine" else rate > 0
    main([*given[:1], *more, *given[1:], "--trainer.max_epochs=4", "--ckpt_path=last"])
    assert len(table(tmp_path)) == 4
    main(["validate", f"--ckpt_path={last(tmp_path)}", f"--config={tmp_path / 'run/version_0/config.yaml'}"])


def test_loaders_of_pairs(task: str, tiny_model: Path, tmp_path: Path) -> None:
    given = line("fit", task, tiny_model, tmp_path, own="OnPairs")
    main([*given[:2], f"--data={OWN}.Pairs", *given[2:]])
    assert table(tmp_path)[["train_loss", "validation_f1_score"]].notna().all(axis=None)


@pytest.mark.parametrize("more", [[], [callback(f"{LIGHTNING}.EarlyStopping", monitor="validation_loss")]])
def test_validation_by_the_clock(more: list[str], task: str, tiny_model: Path, tmp_path: Path) -> None:
    main(line("fit", task, tiny_model, tmp_path, "--trainer.val_check_interval={milliseconds: 1}", *more))
    assert table(tmp_path)["validation_loss"].notna().all()


def test_second_metrics_logger(task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [
        callback("imgcls.MetricsLogger", metrics={name: {"class_path": f"torchmetrics.{kind}"}})
        for name, kind in (("f1", "F1Score"), ("auroc", "AUROC"))
    ]
    main(line("fit", task, tiny_model, tmp_path, *loggers, "--experiment.monitor=validation_auroc"))
    assert table(tmp_path)[["validation_auroc", "validation_f1"]].notna().all(axis=None)
    assert table_of(capsys.readouterr().out).keys() >= {"loss", "f1", "auroc"}
    other = callback("imgcls.MetricsLogger", metrics={"f1": {"class_path": "torchmetrics.Accuracy"}})
    code, message = fails(line("fit", task, tiny_model, tmp_path, *loggers, other), capsys)
    assert (code, "metrics.f1: two loggers" in message) == (2, True), message


def test_hooks_without_super(task: str, tiny_model: Path, tmp_path: Path) -> None:
    Hooks.calls.clear()
    before: dict[str, torch.Tensor] = {}
    more = [
        "--model.freeze_encoder=true",
        "--model.unfreeze={1: 0.0}",
        "--model.scheduler_config.name=plateau",
    ]
    for number, epochs in enumerate([1, 3]):
        resumed = ["--ckpt_path=last"] if number else []
        main(line("fit", task, tiny_model, tmp_path, *more, f"--trainer.max_epochs={epochs}", *resumed, own="Hooks"))
        content = load(last(tmp_path))
        encoder = "backbone.network.resnet.embedder.embedder.convolution.weight"
        if number:
            assert not torch.equal(content["current_model_state"][encoder], before[encoder])  # unfrozen
        before = content["current_model_state"]
        assert content["plateau_schedule"]["last_epoch"] == epochs
        assert content["mine"] == 1
    assert Hooks.calls == {name for name in vars(Hooks) if name.startswith("on_")} - {
        "on_save_checkpoint",
        "on_load_checkpoint",
    }
    main(["validate", f"--ckpt_path={last(tmp_path)}", f"--config={tmp_path / 'run/version_0/config.yaml'}"])


def test_logger_of_the_user(task: str, tiny_model: Path, tmp_path: Path) -> None:
    MemoryLogger.logged.clear()
    main(line("fit", task, tiny_model, tmp_path, f"--trainer.logger={OWN}.MemoryLogger", own="Logging"))
    names = {name for values in MemoryLogger.logged for name in values}
    assert names >= {"train_loss", "validation_f1_score", "validation_mine", "train_mine", "late_mine"}


def test_state_that_could_not_be_read_back_is_not_written(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(line("fit", task, tiny_model, tmp_path, callback(f"{OWN}.Unplain")), capsys)
    assert (code, "checkpoint's Unplain holds objects (datetime.datetime)" in message) == (2, True), message
    assert not last(tmp_path).exists()


def test_class_without_an_image_has_no_weight(
    task: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = '--data.class_names=["dark", "light", "third", "none"]'
    more = [names, "--model.loss_config.class_weights=auto"]
    code, message = fails(line("fit", task, tiny_model, tmp_path, *more), capsys)
    missing = "none" if task == "multi-label" else "third"
    assert (code, f"class_weights: 'auto' needs training images of every class, '{missing}'" in message) == (2, True)
