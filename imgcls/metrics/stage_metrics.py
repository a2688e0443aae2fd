"""The metrics of one stage, updated with the outputs of many steps at once."""

import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric, SumMetric

from imgcls.config.class_path import Spec
from imgcls.errors import ConfigError, RunError, first_line
from imgcls.metrics.build import build, has_threshold, is_binary, is_per_class

_Kind = Literal["classes", "second class", "decisions"]
_State: TypeAlias = Mapping[str, Tensor | list[Tensor]]
_LOSS_SUM, _COUNT, _SCORED = "./loss", "./images", "./scored"  # not valid as names of metrics
_ROUNDING = 1e-6
_BUFFER_VALUES = 2**24  # 64 MiB of float32


class StageMetrics:
    """The metrics of one stage and a buffer of outputs.

    Args:
        stage: ``train``, ``validation`` or ``test``.
        specs: Name -> ``{class_path, init_args}`` of each metric.
        class_names: The classes in the order of the outputs.
        thresholds: Multi-label: the threshold of each class; None for single-label models.
    """

    def __init__(
        self, stage: str, specs: Mapping[str, Spec], class_names: list[str], thresholds: list[float] | None = None
    ) -> None:
        self.stage = stage
        self.class_names = class_names
        self.names = ["loss", *specs]  # in the user's order
        self.multilabel = thresholds is not None
        self.thresholds = None if thresholds is None else torch.tensor(thresholds)
        # not a MetricCollection: metrics differ in their inputs, and its compute groups (torchmetrics 1.9) update only
        # one of several metrics whose first states are equal, even if their thresholds differ
        self.metrics = {name: build(name, spec, len(class_names), self.multilabel) for name, spec in specs.items()}
        self.kinds = {name: _kind(metric, specs[name], self.multilabel) for name, metric in self.metrics.items()}
        self._specs = {name: json.dumps(spec, sort_keys=True, default=str) for name, spec in specs.items()}
        self._specs |= dict.fromkeys((_LOSS_SUM, _COUNT, _SCORED), "")
        # sums instead of a MeanMetric, which without its check for NaN ignores the weights (torchmetrics 1.9), and
        # whose check synchronises with the device in every step
        self.loss_sum, self.count, self.scored = (SumMetric(nan_strategy="disable") for _ in range(3))
        for metric in self._all().values():
            metric.persistent(True)
        self.offered = self.images = self.rows = 0
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.waiting = 0

    def to(self, device: torch.device) -> None:
        """Move the metrics to a device."""
        if self.thresholds is not None:
            self.thresholds = self.thresholds.to(device)
        for metric in self._all().values():
            metric.to(device)

    def add(self, outputs: Mapping[str, Tensor] | None, size: int | None = None) -> None:
        """Buffer the outputs of a step.

        Args:
            outputs: ``batch_loss``, a mean over the batch, and ``logits`` ``(B, classes)`` with ``label``; each may be
                missing.
            size: Number of images in the batch; None for the number of labels.
        """
        outputs = outputs or {}
        size = len(outputs["label"]) if size is None else size
        self.offered += size
        if "batch_loss" in outputs:
            self.loss_sum.update(outputs["batch_loss"] * size)
            self.images += size
        if "logits" in outputs:
            self.rows += size
            self.logits.append(outputs["logits"])
            self.labels.append(outputs["label"])
            self.waiting += outputs["logits"].numel()
            if self.waiting > _BUFFER_VALUES:
                self._flush()

    def compute(self) -> dict[str, Tensor]:
        """Return the value of each metric over all processes, and reset the metrics.

        Without any loss or logits, the loss or the metrics are omitted.

        Raises:
            RunError: If there was no image.
        """
        self._update()
        with warnings.catch_warnings():  # a metric restored from a checkpoint may have had no update since
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            count, scored = self.count.compute(), self.scored.compute()
            if not count and not scored and not self.offered:
                raise RunError(f"{self.stage}: none of the images could be read, see data.json")
            found = {"loss": self.loss_sum.compute() / count} if count else {}
            if scored:
                found |= {name: _value(metric) for name, metric in self.metrics.items()}
        for metric in self._all().values():
            metric.reset()
        self.offered = 0
        values: dict[str, Tensor] = {}
        for name in (name for name in self.names if name in found):
            key, value = f"{self.stage}_{name}", found[name]
            labels = [""] if value.ndim == 0 else [f"_{label}" for label in self.class_names]
            values |= {f"{key}{label}": item for label, item in zip(labels, value.reshape(-1), strict=True)}
        return values

    def state(self) -> dict[str, dict[str, Any]]:
        """Return name -> spec and state of each metric since the last ``compute``, over all processes."""
        self._update()
        found = {}
        for name, metric in self._all().items():
            with metric.sync_context():
                found[name] = {"spec": self._specs[name], "state": dict(metric.state_dict())}
        return found

    def restore(self, states: Mapping[str, dict[str, Any]]) -> None:
        """Restore a state; ignores that of a metric which is gone or has other arguments.

        Raises:
            ConfigError: If a metric cannot be computed from its state.
        """
        if _COUNT in states:  # older checkpoints have only one count
            states = {_SCORED: states[_COUNT], **states}
        for name, metric in self._all().items():
            kept = states.get(name)
            if kept is not None and kept["spec"] == self._specs[name] and _has_same_form(kept["state"], metric):
                if name in self.metrics:
                    _check_state(name, metric, kept["state"], len(self.class_names), self.multilabel)
                _restore_state(metric, kept["state"])

    def _all(self) -> dict[str, Metric]:
        return {**self.metrics, _LOSS_SUM: self.loss_sum, _COUNT: self.count, _SCORED: self.scored}

    def _update(self) -> None:
        self._flush()
        self.count.update(self.images)
        self.scored.update(self.rows)
        self.images = self.rows = 0

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


def _value(metric: Metric) -> Tensor:
    """Compute a metric; undo the rounding of a float32 mean of ones, 1.0000001."""
    value: Tensor = metric.compute()
    most = metric.plot_upper_bound
    return value if most is None else torch.where((value > most) & (value < most + _ROUNDING), most, value)


def _kind(metric: Metric, spec: Spec, multilabel: bool) -> _Kind:
    """Return the input of a metric: the probabilities of all classes or of the second, or decisions."""
    if not multilabel:
        return "second class" if is_binary(metric) else "classes"
    own = "threshold" in (spec.get("init_args") or {})
    return "decisions" if has_threshold(metric) and not own else "classes"


def _has_same_form(state: _State, metric: Metric) -> bool:
    """Whether a state has the keys, shapes and dtypes of a metric; lists may hold tensors of any shape."""
    own = metric.metric_state
    return state.keys() == own.keys() and all(
        isinstance(own[key], list) or _form(value) == _form(own[key]) for key, value in state.items()
    )


def _form(value: Tensor | list[Tensor]) -> tuple[torch.Size, torch.dtype] | None:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else None


def _restore_state(metric: Metric, state: _State) -> None:
    """Set the state of a metric; lists that several processes concatenated to a tensor become lists again."""
    own, device = metric.metric_state, metric.device
    lists = {key for key, value in state.items() if isinstance(own[key], list) and isinstance(value, Tensor)}
    metric.load_state_dict({key: [value] if key in lists else value for key, value in state.items()})
    metric.to(device)


def _check_state(name: str, metric: Metric, state: _State, num_classes: int, multilabel: bool) -> None:
    """Refuse a state from which a metric cannot be computed.

    Raises:
        ConfigError: Names the metric.
    """
    copy = deepcopy(metric).cpu()
    copy.distributed_available_fn = lambda: False  # only one process restores the state
    try:
        _restore_state(copy, state)
        is_per_class(copy, num_classes, multilabel)
    except Exception as error:
        raise ConfigError(f"the checkpoint's state of the metric {name}: {first_line(error)}") from error
