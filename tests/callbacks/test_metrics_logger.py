"""MetricsLogger against torchmetrics and scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torchmetrics import Metric

from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.cli.main import main
from imgcls.errors import ConfigError, RunError
from imgcls.metrics import build as building
from imgcls.metrics import stage_metrics as module
from imgcls.metrics.build import build
from imgcls.metrics.stage_metrics import StageMetrics
from tests.helpers.runs import arguments

NAMES = ["a", "b", "c"]


def spec(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def outputs(count: int, classes: int = 3, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for size in (8, 8, 5)[:count]:
        logits = torch.randn(size, classes, generator=generator)
        labels = torch.randint(0, classes, (size,), generator=generator)
        batches.append({"logits": logits, "label": labels, "batch_loss": logits.mean()})
    return batches


def test_values_are_those_of_all_batches() -> None:
    specs = {
        "accuracy": spec("torchmetrics.Accuracy"),
        "f1_score": spec("torchmetrics.F1Score", average="macro"),
        "auroc": spec("torchmetrics.AUROC"),
        "recall": spec("torchmetrics.Recall", average="none"),
    }
    stage = StageMetrics("validation", specs, NAMES)
    batches = outputs(3)
    for batch in batches:
        stage.add(batch)
    values = {name: float(value) for name, value in stage.compute().items()}
    logits, labels = (torch.cat([batch[key] for batch in batches]) for key in ("logits", "label"))
    probs, preds = torch.softmax(logits, 1), logits.argmax(1)
    assert list(values) == [
        f"validation_{name}" for name in ("loss", "accuracy", "f1_score", "auroc", "recall_a", "recall_b", "recall_c")
    ]
    assert values["validation_accuracy"] == pytest.approx((preds == labels).float().mean().item())
    assert values["validation_f1_score"] == pytest.approx(f1_score(labels, preds, average="macro"))
    assert values["validation_auroc"] == pytest.approx(roc_auc_score(labels, probs, multi_class="ovr"), abs=1e-6)
    weights = [len(batch["label"]) for batch in batches]
    losses = [batch["batch_loss"].item() for batch in batches]
    assert values["validation_loss"] == pytest.approx(np.average(losses, weights=weights))


@pytest.mark.parametrize("classes", [3, 7, 10, 41])
def test_a_perfect_score_is_one(classes: int) -> None:
    names = [f"c{number}" for number in range(classes)]
    specs = {name: spec(f"torchmetrics.{name}", average="macro") for name in ("F1Score", "Recall", "Precision")}
    stage = StageMetrics("test", specs, names)
    labels = torch.arange(classes)
    stage.add({"logits": 9 * torch.eye(classes), "label": labels, "batch_loss": torch.tensor(0.0)})
    assert {float(value) for name, value in stage.compute().items() if name != "test_loss"} == {1.0}


def test_second_epoch_starts_anew() -> None:
    stage = StageMetrics("train", {"accuracy": spec("torchmetrics.Accuracy")}, NAMES)
    stage.add(outputs(1, seed=1)[0])
    stage.compute()
    batch = outputs(1, seed=2)[0]
    stage.add(batch)
    expected = (batch["logits"].argmax(1) == batch["label"]).float().mean()
    assert stage.compute()["train_accuracy"] == expected


def test_full_buffer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = []
    for limit in (0, 30, 2**24):
        monkeypatch.setattr(module, "_BUFFER_VALUES", limit)
        stage = StageMetrics("test", {"f1_score": spec("torchmetrics.F1Score", average="macro")}, NAMES)
        for batch in outputs(3):
            stage.add(batch)
        values.append(stage.compute()["test_f1_score"].item())
    assert values[0] == values[1] == values[2]


def test_binary_task_takes_the_second_class() -> None:
    stage = StageMetrics("test", {"auroc": spec("torchmetrics.AUROC", task="binary")}, ["no", "yes"])
    batches = outputs(3, classes=2)
    for batch in batches:
        stage.add(batch)
    logits, labels = (torch.cat([batch[key] for batch in batches]) for key in ("logits", "label"))
    expected = roc_auc_score(labels, torch.softmax(logits, 1)[:, 1])
    assert stage.compute()["test_auroc"].item() == pytest.approx(expected, abs=1e-6)


def seen(specs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """What a stage keeps of three batches, and the values that it gives of them."""
    stage = StageMetrics("train", specs, NAMES)
    for batch in outputs(3):
        stage.add(batch)
    return stage.state(), {name: float(value) for name, value in stage.compute().items()}


def test_metrics_go_on_from_the_state_of_the_same_ones() -> None:
    specs = {
        "accuracy": spec("torchmetrics.Accuracy"),
        "auroc": spec("torchmetrics.AUROC"),
        "recall": spec("torchmetrics.Recall", average="macro"),
    }
    state, values = seen(specs)
    other = {"recall": specs["recall"], "auroc": specs["auroc"]}  # in another order, and one is gone
    stage = StageMetrics("train", other, NAMES)
    stage.restore(state)
    found = {name: float(value) for name, value in stage.compute().items()}
    assert found == {name: values[name] for name in ("train_loss", "train_recall", "train_auroc")}


def test_state_of_a_metric_with_other_arguments_is_left_out() -> None:
    micro, macro = ({"accuracy": spec("torchmetrics.Accuracy", average=name)} for name in ("micro", "macro"))
    # multiclass with top_k keeps the same states as without
    first, second = ({"accuracy": spec("torchmetrics.Accuracy", average="macro", top_k=top)} for top in (1, 2))
    for before, now in ((micro, macro), (first, second)):
        state, _ = seen(before)
        stage, batch = StageMetrics("train", now, NAMES), outputs(1, seed=3)[0]
        stage.restore(state)
        fresh = StageMetrics("train", now, NAMES)
        for each in (stage, fresh):
            each.add(batch)
        assert stage.compute()["train_accuracy"] == fresh.compute()["train_accuracy"]


def test_joined_state_of_several_processes_is_added_to() -> None:
    specs = {"auroc": spec("torchmetrics.AUROC")}
    state, values = seen(specs)
    kept = state["auroc"]["state"]
    kept |= {name: torch.cat(items) for name, items in kept.items() if isinstance(items, list) and items}
    stage = StageMetrics("train", specs, NAMES)
    stage.restore(state)
    assert float(stage.compute()["train_auroc"]) == values["train_auroc"]
    stage.restore(state)
    stage.add(outputs(1)[0])
    assert 0 < float(stage.compute()["train_auroc"]) < 1


@pytest.mark.parametrize("value", [[torch.zeros(3)], [torch.zeros(90, 3)], [torch.zeros(4, 9)]])
def test_state_that_no_metric_has_is_refused(value: list[torch.Tensor]) -> None:
    specs = {"auroc": spec("torchmetrics.AUROC")}
    state, _ = seen(specs)
    state["auroc"]["state"]["preds"] = value
    with pytest.raises(ConfigError, match=r"the checkpoint's state of the metric auroc: "):
        StageMetrics("train", specs, NAMES).restore(state)


def test_step_waits_for_nothing() -> None:
    """On the meta device every read of a value by the host raises."""
    stage = StageMetrics("train", MetricsLogger().specs, NAMES)
    stage.to(torch.device("meta"))
    batch = {key: value.to("meta") for key, value in outputs(1)[0].items()}
    for _ in range(5):
        stage.add(batch)
    assert len(stage.logits) == 5


@pytest.mark.parametrize(("batches", "every", "steps"), [(1, 5, [5, 10]), (4, 1, [1, 2, 3, 4]), (4, 2, [2, 4])])
def test_a_step_is_logged_once_with_the_rate_that_is_configured(
    batches: int, every: int, steps: list[int], photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    more = [f"--trainer.accumulate_grad_batches={batches}", f"--trainer.log_every_n_steps={every}"]
    rates = ["--model.scheduler_config.name=constant", "--model.scheduler_config.warmup_epochs=0"]
    heads = ["--model.optimizer_config.layer_decay=0.5", "--model.optimizer_config.head_multiplier=10"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, *rates, *heads)])
    events = EventAccumulator(str(tmp_path / "run/version_0"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss_step")] == steps
    assert [event.value for event in events.Scalars("lr")] == pytest.approx([0.01] * len(steps))


def test_default_metrics_have_known_names() -> None:
    logger = MetricsLogger()
    assert [name for name in logger.names(NAMES) if name.startswith("train")] == [
        "train_loss",
        "train_accuracy",
        "train_precision",
        "train_recall",
        "train_f1_score",
    ]
    assert logger.default_monitor(NAMES) == "validation_f1_score"


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({}, ("validation_loss", "min")),
        (
            {"auroc": spec("torchmetrics.AUROC"), "f1_score": spec("torchmetrics.F1Score")},
            ("validation_f1_score", "max"),
        ),
        ({"hamming": spec("torchmetrics.HammingDistance")}, ("validation_hamming", "min")),
        ({"recall": spec("torchmetrics.Recall", average="none")}, ("validation_loss", "min")),
        ({"top3": spec("torchmetrics.Accuracy", top_k=3)}, ("validation_top3", "max")),
        ({"f1": spec("torchmetrics.F1Score", task="multiclass", num_classes=3)}, ("validation_f1", "max")),
    ],
)
def test_default_monitor(metrics: dict[str, Any], expected: tuple[str, str]) -> None:
    logger = MetricsLogger(metrics)
    monitor = logger.default_monitor(NAMES)
    assert (monitor, logger.mode(monitor, NAMES)) == expected


def test_metrics_of_many_classes_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def counted(name: str, *rest: Any) -> Metric:
        built.append(name)
        return build(name, *rest)

    monkeypatch.setattr(building, "build", counted)
    logger = MetricsLogger({"f1": spec("F1Score", average=None)})
    names = [str(number) for number in range(3000)]
    values = logger.names(names)
    assert len(values) == 2 * 3001
    assert {logger.mode(value, names) for value in values[1:9]} == {"max"}
    assert logger.default_monitor(names) == "validation_loss"
    assert built == ["f1"]


def test_a_metric_is_tried_without_warnings_of_classes_that_are_not_there(recwarn: pytest.WarningsRecorder) -> None:
    build("ap", spec("AveragePrecision"), 40)
    build("ap", spec("AveragePrecision"), 40, multilabel=True)
    assert list(recwarn) == []


def test_an_error_rate_is_better_when_it_is_low() -> None:
    logger = MetricsLogger({"eer": spec("torchmetrics.classification.EER")})  # whose class does not say so
    assert logger.mode("validation_eer", ["a", "b"]) == "min"


def test_arguments_of_every_metric_are_known() -> None:
    logger = MetricsLogger({"recall": spec("torchmetrics.Recall", sync_on_compute=False, compute_on_cpu=True)})
    assert "validation_recall" in logger.names(NAMES)


def test_a_step_of_the_user_gives_what_it_has() -> None:
    stage = StageMetrics("train", {"accuracy": spec("torchmetrics.Accuracy")}, NAMES)
    stage.add({"batch_loss": torch.tensor(2.0)}, 3)
    stage.add({"batch_loss": torch.tensor(1.0)}, 1)
    assert {name: float(value) for name, value in stage.compute().items()} == {"train_loss": 1.75}
    stage.add({}, 4)
    assert stage.compute() == {}
    stage.add({}, 0)
    with pytest.raises(RunError, match="none of the images could be read"):
        stage.compute()


def test_names_of_a_metric_for_each_class() -> None:
    logger = MetricsLogger({"recall": spec("torchmetrics.Recall", average="none")})
    assert logger.names(NAMES)[:4] == ["train_loss", "train_recall_a", "train_recall_b", "train_recall_c"]
    assert logger.mode("validation_recall_a", NAMES) == "max"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (spec("torchmetrics.Acuracy"), "'torchmetrics' has no 'Acuracy'; did you mean 'Accuracy'?"),
        (spec("nowhere.Metric"), "cannot import 'nowhere'"),
        (spec("torchmetrics.Accuracy", num_clases=3), "no argument 'num_clases'; did you mean 'num_classes'?"),
        ({"class_path": "torchmetrics.Accuracy", "args": {}}, "unknown key 'args'"),
        ("torchmetrics.Accuracy", "expected {class_path"),
    ],
)
def test_wrong_spec_is_refused_when_parsed(metric: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.mine") as error:
        MetricsLogger({"mine": metric})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (spec("torchmetrics.Accuracy", average="makro"), "average"),
        (spec("torchmetrics.ConfusionMatrix"), "must return one number or one per class"),
        (spec("torchmetrics.Accuracy", num_classes=2), "should be equal to number of classes"),
        (
            spec("torchmetrics.AUROC", task="binary"),
            "supports only two classes, but the data have 3; remove task",
        ),
        (spec("torchmetrics.classification.BinaryAUROC"), "supports only two classes, but the data have 3"),
    ],
)
def test_metric_that_cannot_work_is_refused_before_training(metric: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        StageMetrics("train", {"mine": metric}, NAMES)
    assert message in str(error.value)
