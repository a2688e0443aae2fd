"""MetricsLogger: log the loss and torchmetrics of every stage without stalling the training step."""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor

from imgcls.config.class_path import Spec
from imgcls.metrics.build import Described, check_distinct, check_spec, describe
from imgcls.metrics.stage_metrics import StageMetrics
from imgcls.types import LR_SCALE

STAGES = ("train", "validation", "test")
DEFAULT_METRICS: dict[str, Spec] = {
    "accuracy": {"class_path": "torchmetrics.Accuracy", "init_args": {"average": "micro"}},
    "precision": {"class_path": "torchmetrics.Precision", "init_args": {"average": "macro"}},
    "recall": {"class_path": "torchmetrics.Recall", "init_args": {"average": "macro"}},
    "f1_score": {"class_path": "torchmetrics.F1Score", "init_args": {"average": "macro"}},
}


class MetricsLogger(Callback):
    """Log the loss and metrics of train, validation and test as ``{stage}_{name}``.

    Outputs are buffered on the device and passed to the metrics in large portions, because an ``update`` per step
    would synchronise with the device several times.

    Args:
        metrics: Name -> ``{class_path, init_args}`` of a torchmetrics class with one value, or one per class; ``task``
            and ``num_classes`` (multi-label: ``num_labels``) are added. Null: accuracy, and macro precision, recall and
            f1_score; multi-label accuracy is the fraction of correct decisions over all images and classes.

    Multi-label: metrics of decisions use the model's ``threshold`` unless they have their own; metrics of
    probabilities, such as AveragePrecision, get the probabilities.
    """

    def __init__(self, metrics: dict[str, dict[str, Any]] | None = None) -> None:
        self.specs = DEFAULT_METRICS if metrics is None else metrics
        for name, spec in self.specs.items():
            check_spec(name, spec)
        self._described: dict[tuple[int, bool], dict[str, Described]] = {}
        self._stages: dict[str, StageMetrics] = {}
        self._has_trained = False  # at least one batch of this epoch
        self._step = 0  # last optimizer step
        self._resumed: dict[str, Any] = {}  # state of the training metrics when resuming within an epoch

    def names(self, class_names: list[str], multilabel: bool = False) -> list[str]:
        """Return the names of all values that a fit logs."""
        values = ["loss"]
        for name, metric in self._describe(class_names, multilabel).items():
            values += [f"{name}_{label}" for label in class_names] if metric.per_class else [name]
        check_distinct(values)
        return [f"{stage}_{value}" for stage in ("train", "validation") for value in values]

    def default_monitor(self, class_names: list[str], multilabel: bool = False) -> str:
        """Return the default monitor: the F1 score, else the first metric with one value, else the loss."""
        scalar = [name for name, metric in self._describe(class_names, multilabel).items() if not metric.per_class]
        return f"validation_{min(scalar, key=lambda name: name != 'f1_score', default='loss')}"

    def mode(self, value: str, class_names: list[str], multilabel: bool = False) -> str | None:
        """Return ``min`` if lower values are better, ``max`` if higher; None if unknown."""
        value = value.partition("_")[2]
        owners = [name for name in self.specs if value == name or value.startswith(f"{name}_")]
        if not owners:
            return "min"  # the loss
        return self._describe(class_names, multilabel)[max(owners, key=len)].better

    def _describe(self, class_names: list[str], multilabel: bool) -> dict[str, Described]:
        key = len(class_names), multilabel
        if key not in self._described:  # building a metric of many classes is slow
            self._described[key] = {name: describe(name, spec, *key) for name, spec in self.specs.items()}
        return self._described[key]

    # -- hooks of Lightning

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics; not reused, because model or inference mode may have changed."""
        class_names: list[str] = pl_module.class_names  # type: ignore[assignment]
        thresholds: list[float] | None = pl_module.thresholds  # type: ignore[assignment]
        for stage in STAGES:
            self._stages[stage] = StageMetrics(stage, self.specs, class_names, thresholds)
            self._stages[stage].to(pl_module.device)

    on_test_start = on_fit_start

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the step and, when resuming within an epoch, the training metrics."""
        self._step = trainer.global_step
        if self._resumed and trainer.is_global_zero:  # the state is that of all processes together
            self._stages["train"].restore(self._resumed)
        self._has_trained, self._resumed = bool(self._resumed), {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the metrics, except in the validation of a fit."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.on_fit_start(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Buffer the outputs; every ``log_every_n_steps`` log the loss and learning rate of the step."""
        outputs, size = usable_outputs(outputs, batch, trainer.accumulate_grad_batches)
        self._stages["train"].add(outputs, size)
        self._has_trained = True
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        stepped, self._step = trainer.global_step != self._step, trainer.global_step  # False while gradients accumulate
        if stepped and "batch_loss" in outputs and every and trainer.global_step % every == 0:
            values = {"train_loss_step": outputs["batch_loss"].item(), "lr": rate_of(trainer)}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Buffer the outputs."""
        self._stages["test" if trainer.testing else "validation"].add(*usable_outputs(outputs, batch))

    on_test_batch_end = on_validation_batch_end

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the values of the epoch, unless it was resumed after its last batch."""
        if self._has_trained:
            pl_module.log_dict(self._stages["train"].compute())  # over all processes
        self._has_trained = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the values of the epoch."""
        pl_module.log_dict(self._stages["test" if trainer.testing else "validation"].compute())

    on_test_epoch_end = on_validation_epoch_end

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training metrics within an epoch; empty between epochs."""
        return {"train": self._stages["train"].state()} if self._has_trained else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the metrics are built."""
        self._resumed = state_dict.get("train", {})


def usable_outputs(outputs: Any, batch: Any, accumulated: int = 1) -> tuple[dict[str, Tensor], int]:
    """Return the outputs of a step that metrics use, and the number of images.

    A user's own step may return only a loss, or nothing; outputs of another form are ignored. ``accumulated`` is the
    number of batches by which Lightning has divided ``loss``.
    """
    label = batch.get("label") if isinstance(batch, Mapping) else None
    given = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    label = given.get("label", label)
    size = len(label) if isinstance(label, Tensor) else extract_batch_size(batch)
    if not size:
        return {}, 0
    logits, loss, batch_loss = (given.get(key) for key in ("logits", "loss", "batch_loss"))
    found = {}
    if isinstance(batch_loss, Tensor):
        found["batch_loss"] = batch_loss
    elif isinstance(loss, Tensor) and loss.numel() == 1:
        found["batch_loss"] = loss.detach() * accumulated
    if isinstance(logits, Tensor) and isinstance(label, Tensor) and logits.ndim == 2 and len(logits) == size:
        found |= {"logits": logits.detach(), "label": label}
    return found, size


def rate_of(trainer: pl.Trainer) -> float:
    """Return the current value of ``optimizer_config.lr``, of which each parameter group has a multiple.

    NaN if the user's ``configure_optimizers`` returns nothing.
    """
    groups = [group for group in trainer.optimizers[0].param_groups if "lr" in group]
    return max((float(group["lr"] / group.get(LR_SCALE, 1)) for group in groups), default=math.nan)
