"""MetricsLogger: losses and torchmetrics of every stage, without a stall in the training step."""

from collections.abc import Mapping
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import Metric, SumMetric

from imgcls.config.class_path import Spec
from imgcls.errors import RunError
from imgcls.metrics.build import Described, build, check_distinct, check_spec, describe, has_threshold, is_binary

STAGES = ("train", "validation", "test")
DEFAULT_METRICS: dict[str, Spec] = {
    "accuracy": {"class_path": "torchmetrics.Accuracy", "init_args": {"average": "micro"}},
    "precision": {"class_path": "torchmetrics.Precision", "init_args": {"average": "macro"}},
    "recall": {"class_path": "torchmetrics.Recall", "init_args": {"average": "macro"}},
    "f1_score": {"class_path": "torchmetrics.F1Score", "init_args": {"average": "macro"}},
}
_Kind = Literal["classes", "second class", "decisions"]
_SCALE = "lr_scale"  # of a group of parameters, as the model's optimizer has it; the name is timm's
_ROUNDING = 1e-6
_BUFFER_VALUES = 2**24  # 64 MiB of float32


class MetricsLogger(Callback):
    """Logs the loss and the given metrics of train, validation and test as ``{stage}_{name}``.

    Probabilities and labels wait on the device and reach the metrics in large portions: an ``update`` in each step
    would make the device wait for the host several times a step.

    Args:
        metrics: Name -> ``{class_path, init_args}`` of a torchmetrics class whose value is one number, or one for each
            class; ``task`` and ``num_classes`` are filled in, or ``num_labels`` where an image may have several labels.
            Null: accuracy, and macro precision, recall and f1_score; of several labels, accuracy is the share of right
            decisions over all images and classes.

    Of several labels, metrics that need decisions get those by the model's ``threshold``, unless they are given one of
    their own; metrics of probabilities, such as AveragePrecision, get the probabilities.
    """

    def __init__(self, metrics: dict[str, dict[str, Any]] | None = None) -> None:
        self.specs = DEFAULT_METRICS if metrics is None else metrics
        for name, spec in self.specs.items():
            check_spec(name, spec)
        self._described: dict[tuple[int, bool], dict[str, Described]] = {}
        self._stages: dict[str, _StageMetrics] = {}
        self._trains = False  # a batch of this epoch was seen
        self._step = 0  # of the optimizer, the last one that was seen

    def names(self, class_names: list[str], multilabel: bool = False) -> list[str]:
        """Names of the values that a fit logs for these classes, of which an image has one, or several."""
        values = ["loss"]
        for name, metric in self._describe(class_names, multilabel).items():
            values += [f"{name}_{label}" for label in class_names] if metric.per_class else [name]
        check_distinct(values)
        return [f"{stage}_{value}" for stage in ("train", "validation") for value in values]

    def default_monitor(self, class_names: list[str], multilabel: bool = False) -> str:
        """Return the value to choose the best epoch by: the F1 score, else the first metric that is one number."""
        scalar = [name for name, metric in self._describe(class_names, multilabel).items() if not metric.per_class]
        return f"validation_{min(scalar, key=lambda name: name != 'f1_score', default='loss')}"

    def mode(self, value: str, class_names: list[str], multilabel: bool = False) -> str | None:
        """Return ``min`` if a logged value is better when it is low, ``max`` if when high; None if nobody says."""
        value = value.partition("_")[2]
        owners = [name for name in self.specs if value == name or value.startswith(f"{name}_")]
        if not owners:
            return "min"  # the loss
        return self._describe(class_names, multilabel)[max(owners, key=len)].better

    def _describe(self, class_names: list[str], multilabel: bool) -> dict[str, Described]:
        key = len(class_names), multilabel
        if key not in self._described:  # to build a metric of many classes takes long
            self._described[key] = {name: describe(name, spec, *key) for name, spec in self.specs.items()}
        return self._described[key]

    # -- the hooks of Lightning

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics; a wrong one is refused here, before the first step."""
        self._begin(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the step that the run goes on from."""
        self._step = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics, unless it is a fit that validates."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._begin(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics."""
        self._begin(pl_module)

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
        self._trains = True
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        stepped, self._step = trainer.global_step != self._step, trainer.global_step  # no: gradients are accumulated
        if stepped and outputs and "batch_loss" in outputs and every and trainer.global_step % every == 0:
            values = {"train_loss_step": outputs["batch_loss"].item(), "lr": rate_of(trainer)}
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
        """Log the epoch's values; of a checkpoint from behind its last batch, none is left to train on."""
        if self._trains:
            self._log("train", pl_module)
        self._trains = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's values."""
        self._log("validation", pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the values."""
        self._log("test", pl_module)

    def _begin(self, pl_module: pl.LightningModule) -> None:
        """Build the metrics anew: the model may be another than before, and so may be Lightning's inference mode."""
        class_names: list[str] = pl_module.class_names  # type: ignore[assignment]
        thresholds: list[float] | None = pl_module.thresholds  # type: ignore[assignment]
        for stage in STAGES:
            self._stages[stage] = _StageMetrics(stage, self.specs, class_names, thresholds)
            self._stages[stage].to(pl_module.device)

    def _log(self, stage: str, pl_module: pl.LightningModule) -> None:
        # computed over all processes already: nothing is left to reduce
        pl_module.log_dict(self._stages[stage].compute())


class _StageMetrics:
    """The metrics of one stage, and the outputs that they have not seen yet."""

    def __init__(
        self, stage: str, specs: Mapping[str, Spec], class_names: list[str], thresholds: list[float] | None = None
    ) -> None:
        self.stage = stage
        self.class_names = class_names
        self.names = ["loss", *specs]  # in the user's order
        several = thresholds is not None
        self.thresholds = None if thresholds is None else torch.tensor(thresholds)
        # no MetricCollection: of metrics whose first states are equal it updates one alone from then on (torchmetrics
        # 1.9), though their thresholds may differ
        self.metrics = {name: build(name, spec, len(class_names), several) for name, spec in specs.items()}
        self.kinds = {name: _kind(metric, specs[name], several) for name, metric in self.metrics.items()}
        # sums, for MeanMetric forgets its weights without its check for NaN (torchmetrics 1.9), and the check would
        # wait for the device in every step
        self.loss_sum, self.count = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.images = 0
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.waiting = 0

    def to(self, device: torch.device) -> None:
        if self.thresholds is not None:
            self.thresholds = self.thresholds.to(device)
        for metric in self._all():
            metric.to(device)

    def add(self, outputs: Mapping[str, Tensor] | None) -> None:
        if not outputs or "logits" not in outputs:  # an empty batch
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
        found = {"loss": loss} | {name: _value(metric) for name, metric in self.metrics.items()}
        self.images = 0
        for metric in self._all():
            metric.reset()
        values: dict[str, Tensor] = {}
        for name in self.names:
            values |= self._named(f"{self.stage}_{name}", found[name])
        return values

    def _all(self) -> tuple[Metric, ...]:
        return *self.metrics.values(), self.loss_sum, self.count

    def _flush(self) -> None:
        if not self.logits:
            return
        logits, labels = torch.cat(self.logits), torch.cat(self.labels).long()
        probs = torch.softmax(logits, dim=1) if self.thresholds is None else torch.sigmoid(logits)
        self.logits, self.labels, self.waiting = [], [], 0
        given: dict[_Kind, Tensor] = {"classes": probs}
        if self.thresholds is not None:
            given["decisions"] = (probs > self.thresholds).long()
        elif len(self.class_names) > 1:
            given["second class"] = probs[:, 1]
        for name, metric in self.metrics.items():
            metric.update(given[self.kinds[name]], labels)

    def _named(self, name: str, value: Tensor) -> dict[str, Tensor]:
        if value.ndim == 0:
            return {name: value}
        return {f"{name}_{label}": item for label, item in zip(self.class_names, value, strict=True)}


def _value(metric: Metric) -> Tensor:
    """Return what a metric gives, without the rounding of a mean of ones in float32: 1.0000001."""
    value: Tensor = metric.compute()
    most = metric.plot_upper_bound
    return value if most is None else torch.where((value > most) & (value < most + _ROUNDING), most, value)


def rate_of(trainer: pl.Trainer) -> float:
    """Return where ``optimizer_config.lr`` stands, of which each group of parameters has its multiple."""
    rates: list[float] = [group["lr"] / group.get(_SCALE, 1) for group in trainer.optimizers[0].param_groups]
    return max(rates)  # but for rounding, they are alike


def _kind(metric: Metric, spec: Spec, multilabel: bool) -> _Kind:
    """Return what a metric is given: the probabilities of all classes or of the second, or decisions."""
    if not multilabel:
        return "second class" if is_binary(metric) else "classes"
    own = "threshold" in (spec.get("init_args") or {})
    return "decisions" if has_threshold(metric) and not own else "classes"
