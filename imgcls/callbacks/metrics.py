"""MetricsLogger: losses and torchmetrics of every stage, without a stall in the training step."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics import Metric, MetricCollection, SumMetric

from imgcls.errors import ConfigError, RunError, first_line
from imgcls.specs import Spec, check_arguments, class_path_of, find_class

STAGES = ("train", "validation", "test")
DEFAULT_METRICS: dict[str, Spec] = {
    "accuracy": {"class_path": "torchmetrics.Accuracy", "init_args": {"average": "micro"}},
    "precision": {"class_path": "torchmetrics.Precision", "init_args": {"average": "macro"}},
    "recall": {"class_path": "torchmetrics.Recall", "init_args": {"average": "macro"}},
    "f1_score": {"class_path": "torchmetrics.F1Score", "init_args": {"average": "macro"}},
}
_PACKAGE = "torchmetrics"
_KEY = "imgcls.MetricsLogger: metrics"
_BUFFER_VALUES = 2**24  # 64 MiB of float32


class MetricsLogger(Callback):
    """Logs the loss and the given metrics of train, validation and test as ``{stage}_{name}``.

    Probabilities and labels wait on the device and reach the metrics in large portions: an ``update`` in each step
    would make the device wait for the host several times a step.

    Args:
        metrics: Name -> ``{class_path, init_args}`` of any torchmetrics class; ``task`` and ``num_classes`` are filled
            in. Null: accuracy, and macro precision, recall and f1_score.
    """

    def __init__(self, metrics: dict[str, dict[str, Any]] | None = None) -> None:
        self.specs = DEFAULT_METRICS if metrics is None else metrics
        for name, spec in self.specs.items():
            _check_spec(name, spec)
        self._stages: dict[str, _StageMetrics] = {}

    def names(self, class_names: list[str]) -> list[str]:
        """Names of the values that a fit logs for these classes."""
        values = ["loss"]
        for name, spec in self.specs.items():
            per_class = _is_per_class(_build(name, spec, len(class_names)), len(class_names))
            values += [f"{name}_{label}" for label in class_names] if per_class else [name]
        return [f"{stage}_{value}" for stage in ("train", "validation") for value in values]

    def default_monitor(self) -> str:
        """Return the value to choose the best epoch by: the F1 score, else the first metric that is one number."""
        names = sorted(self.specs, key=lambda name: name != "f1_score")
        scalar = (name for name in names if not _is_per_class(_build(name, self.specs[name], 2), 2))
        return f"validation_{next(scalar, 'loss')}"

    def mode(self, value: str) -> str:
        """Return ``min`` if a logged value is better when it is low, else ``max``."""
        value = value.partition("_")[2]
        owners = [name for name in self.specs if value == name or value.startswith(f"{name}_")]
        if not owners:
            return "min"  # the loss
        name = max(owners, key=len)
        return "min" if _build(name, self.specs[name], num_classes=2).higher_is_better is False else "max"

    # -- the hooks of Lightning

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics; a wrong one is refused here, before the first step."""
        self._prepare(pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics where there was no fit."""
        self._prepare(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics where there was no fit."""
        self._prepare(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the outputs; now and then log the loss of the step."""
        self._stages["train"].add(outputs)
        if outputs and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            values = {
                "train_loss_step": outputs["batch_loss"].item(),
                "lr": max(group["lr"] for group in trainer.optimizers[0].param_groups),
            }
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the outputs."""
        self._stages["validation"].add(outputs)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the outputs."""
        self._stages["test"].add(outputs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's values."""
        self._log("train", pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's values."""
        self._log("validation", pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the values."""
        self._log("test", pl_module)

    def _prepare(self, pl_module: pl.LightningModule) -> None:
        class_names: list[str] = pl_module.class_names  # type: ignore[assignment]
        for stage in STAGES:
            if stage not in self._stages:
                self._stages[stage] = _StageMetrics(stage, self.specs, class_names)
            self._stages[stage].to(pl_module.device)

    def _log(self, stage: str, pl_module: pl.LightningModule) -> None:
        # computed over all processes already: nothing is left to reduce
        pl_module.log_dict(self._stages[stage].compute())


class _StageMetrics:
    """The metrics of one stage, and the outputs that they have not seen yet."""

    def __init__(self, stage: str, specs: Mapping[str, Spec], class_names: list[str]) -> None:
        self.stage = stage
        self.class_names = class_names
        self.names = ["loss", *specs]  # in the user's order
        built = {name: _build(name, spec, len(class_names)) for name, spec in specs.items()}
        self.of_classes = MetricCollection({name: metric for name, metric in built.items() if not _is_binary(metric)})
        self.of_second_class = MetricCollection({name: metric for name, metric in built.items() if _is_binary(metric)})
        # sums, for MeanMetric forgets its weights without its check for NaN (torchmetrics 1.9), and the check would
        # wait for the device in every step
        self.loss_sum, self.count = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.images = 0
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.waiting = 0

    def to(self, device: torch.device) -> None:
        for metric in self._all():
            metric.to(device)

    def add(self, outputs: Mapping[str, Tensor] | None) -> None:
        if not outputs:  # an empty batch
            return
        logits, labels = outputs["logits"], outputs["label"]
        self.loss_sum.update(outputs["batch_loss"] * len(labels))
        self.images += len(labels)
        self.logits.append(logits)
        self.labels.append(labels)
        self.waiting += logits.numel()
        if self.waiting > _BUFFER_VALUES:
            self._flush()

    def compute(self) -> dict[str, Tensor]:
        self._flush()
        self.count.update(self.images)
        count = self.count.compute()
        if not count:
            raise RunError(f"{self.stage}: none of the images could be read, see data.json")
        loss = self.loss_sum.compute() / count
        found = {"loss": loss, **self.of_classes.compute(), **self.of_second_class.compute()}
        self.images = 0
        for metric in self._all():
            metric.reset()
        values: dict[str, Tensor] = {}
        for name in self.names:
            values |= self._named(f"{self.stage}_{name}", found[name])
        return values

    def _all(self) -> tuple[Metric | MetricCollection, ...]:
        return self.of_classes, self.of_second_class, self.loss_sum, self.count

    def _flush(self) -> None:
        if not self.logits:
            return
        probs, labels = torch.softmax(torch.cat(self.logits), dim=1), torch.cat(self.labels)
        self.logits, self.labels, self.waiting = [], [], 0
        if self.of_classes:
            self.of_classes.update(probs, labels)
        if self.of_second_class:
            self.of_second_class.update(probs[:, 1], labels)

    def _named(self, name: str, value: Tensor) -> dict[str, Tensor]:
        if value.ndim == 0:
            return {name: value}
        return {f"{name}_{label}": item for label, item in zip(self.class_names, value, strict=True)}


def _check_spec(name: str, spec: Spec) -> None:
    where = f"{_KEY}.{name}"
    class_path = class_path_of(spec, where)
    parameters = _parameters(find_class(class_path, _PACKAGE, where))
    check_arguments(spec.get("init_args") or {}, parameters, f"{where}: {class_path}")


def _build(name: str, spec: Spec, num_classes: int) -> Metric:
    where = f"{_KEY}.{name}"
    kind = find_class(spec["class_path"], _PACKAGE, where)
    parameters = _parameters(kind)
    arguments = dict(spec.get("init_args") or {})
    if "task" in parameters:
        arguments.setdefault("task", "multiclass")
    if "num_classes" in parameters and arguments.get("task", "multiclass") == "multiclass":
        arguments.setdefault("num_classes", num_classes)
    try:
        metric: Metric = kind(**arguments)
        _is_per_class(metric, num_classes)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: {spec['class_path']}: {first_line(error)}") from error
    return metric


def _is_per_class(metric: Metric, num_classes: int) -> bool:
    """Compute the metric once on made-up values: what it cannot do shows here and not after an epoch."""
    labels = torch.arange(2 * num_classes) % num_classes
    probs = torch.softmax(torch.nn.functional.one_hot(labels, num_classes).float(), dim=1)
    metric.update(probs[:, 1] if _is_binary(metric) else probs, labels)
    value = metric.compute()
    metric.reset()
    if not isinstance(value, Tensor) or value.shape not in {(), (num_classes,)}:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"{type(metric).__name__}: gives {shape}; one number, or one for each class, can be logged")
    return value.ndim == 1


def _is_binary(metric: Metric) -> bool:
    return type(metric).__name__.startswith("Binary")


def _parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Arguments of a metric; those of torchmetrics' task wrappers stand in ``__new__``."""
    function = kind.__new__ if "__new__" in vars(kind) else kind.__init__
    named = dict(inspect.signature(function).parameters)
    return {name: parameter for name, parameter in named.items() if name not in {"self", "cls", "kwargs", "args"}}
