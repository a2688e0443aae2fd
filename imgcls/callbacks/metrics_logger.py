"""MetricsLogger: losses and torchmetrics of every stage, without a stall in the training step."""

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
from imgcls.metrics.stage import StageMetrics

STAGES = ("train", "validation", "test")
DEFAULT_METRICS: dict[str, Spec] = {
    "accuracy": {"class_path": "torchmetrics.Accuracy", "init_args": {"average": "micro"}},
    "precision": {"class_path": "torchmetrics.Precision", "init_args": {"average": "macro"}},
    "recall": {"class_path": "torchmetrics.Recall", "init_args": {"average": "macro"}},
    "f1_score": {"class_path": "torchmetrics.F1Score", "init_args": {"average": "macro"}},
}
_SCALE = "lr_scale"  # of a group of parameters, as the model's optimizer has it; the name is timm's


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
        self._stages: dict[str, StageMetrics] = {}
        self._trains = False  # a batch of this epoch was seen
        self._step = 0  # of the optimizer, the last one that was seen
        self._before: dict[str, Any] = {}  # what the metrics had seen of an epoch within which a run goes on

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
        """Take the step that the run goes on from, and what the metrics had seen of its epoch."""
        self._step = trainer.global_step
        if self._before and trainer.is_global_zero:  # it is of all processes
            self._stages["train"].restore(self._before)
        self._trains, self._before = bool(self._before), {}

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
        outputs, size = _seen(outputs, batch, trainer.accumulate_grad_batches)
        self._stages["train"].add(outputs, size)
        self._trains = True
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        stepped, self._step = trainer.global_step != self._step, trainer.global_step  # no: gradients are accumulated
        if stepped and "batch_loss" in outputs and every and trainer.global_step % every == 0:
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
        self._stages["validation"].add(*_seen(outputs, batch))

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
        self._stages["test"].add(*_seen(outputs, batch))

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

    def state_dict(self) -> dict[str, Any]:
        """What the metrics have seen of the epoch that is trained; nothing between epochs."""
        return {"train": self._stages["train"].state()} if self._trains else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the metrics are built."""
        self._before = state_dict.get("train", {})

    def _begin(self, pl_module: pl.LightningModule) -> None:
        """Build the metrics anew: the model may be another than before, and so may be Lightning's inference mode."""
        class_names: list[str] = pl_module.class_names  # type: ignore[assignment]
        thresholds: list[float] | None = pl_module.thresholds  # type: ignore[assignment]
        for stage in STAGES:
            self._stages[stage] = StageMetrics(stage, self.specs, class_names, thresholds)
            self._stages[stage].to(pl_module.device)

    def _log(self, stage: str, pl_module: pl.LightningModule) -> None:
        # computed over all processes already: nothing is left to reduce
        pl_module.log_dict(self._stages[stage].compute())


def _seen(outputs: Any, batch: Any, accumulated: int = 1) -> tuple[dict[str, Tensor], int]:
    """Return what metrics need of a step's outputs, and the number of images.

    A step of the user's may return a loss alone, or nothing; what has another form is left out.

    Args:
        outputs: Of the step, as Lightning gives them to callbacks.
        batch: The batch.
        accumulated: By what Lightning has divided a loss under the key ``loss``.
    """
    label = batch.get("label") if isinstance(batch, Mapping) else None
    given = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    label = given.get("label", label)
    size = len(label) if isinstance(label, Tensor) else extract_batch_size(batch)
    if not size:
        return {}, 0
    logits, loss, batch_loss = (given.get(key) for key in ("logits", "loss", "batch_loss"))
    seen = {}
    if isinstance(batch_loss, Tensor):
        seen["batch_loss"] = batch_loss
    elif isinstance(loss, Tensor) and loss.numel() == 1:
        seen["batch_loss"] = loss.detach() * accumulated
    if isinstance(logits, Tensor) and isinstance(label, Tensor) and logits.ndim == 2 and len(logits) == size:
        seen |= {"logits": logits.detach(), "label": label}
    return seen, size


def rate_of(trainer: pl.Trainer) -> float:
    """Return the current value of ``optimizer_config.lr``, of which each group of parameters has its multiple.

    NaN where ``configure_optimizers`` of the user's returns nothing.
    """
    groups = [group for group in trainer.optimizers[0].param_groups if "lr" in group]
    return max((float(group["lr"] / group.get(_SCALE, 1)) for group in groups), default=math.nan)
