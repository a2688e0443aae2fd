"""Build torchmetrics metrics from specs; each is tried on synthetic values first."""

import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from imgcls.config.class_path import Spec, check_arguments, class_path_of, find_class
from imgcls.errors import ConfigError, first_line

_PACKAGE = "torchmetrics"
_KEY = "imgcls.MetricsLogger: metrics"
_ERRORS = "EER"  # the classes without ``higher_is_better`` in torchmetrics 1.9 for which lower is better
_OF_EVERY_METRIC = (  # keyword arguments of torchmetrics' base class (1.9)
    "compute_on_cpu",
    "compute_with_cache",
    "dist_sync_fn",
    "dist_sync_on_step",
    "distributed_available_fn",
    "process_group",
    "sync_on_compute",
)
_TRIED = 16  # synthetic images; one of each class would need classes x classes values


class Described(NamedTuple):
    """Properties of a metric.

    Args:
        per_class: Whether it has one value per class.
        better: ``min`` if lower is better, ``max`` if higher; None if unknown.
    """

    per_class: bool
    better: Literal["min", "max"] | None


def check_spec(name: str, spec: Spec) -> None:
    """Check the name, class and argument names of a metric.

    Raises:
        ConfigError: Names the metric.
    """
    if name == "loss":
        raise ConfigError(f"{_KEY}: 'loss' is the name of the model's loss; choose another name")
    if not name or set(name) & set("./{}"):
        raise ConfigError(f"{_KEY}: {name!r} is not a valid name; use letters, digits and _")
    where = f"{_KEY}.{name}"
    class_path = class_path_of(spec, where)
    known = [*_parameters(find_class(class_path, _PACKAGE, where)), *_OF_EVERY_METRIC]
    check_arguments(spec.get("init_args") or {}, known, f"{where}: {class_path}")


def build(name: str, spec: Spec, num_classes: int, multilabel: bool = False) -> Metric:
    """Build a metric of its ``{class_path, init_args}``, adding its task and number of classes or labels.

    Raises:
        ConfigError: If it cannot be built or does not support the task.
    """
    where = f"{_KEY}.{name}: {spec['class_path']}"
    kind = find_class(spec["class_path"], _PACKAGE, f"{_KEY}.{name}")
    parameters = _parameters(kind)
    arguments = dict(spec.get("init_args") or {})
    task, count = ("multilabel", "num_labels") if multilabel else ("multiclass", "num_classes")
    if "task" in parameters:
        arguments.setdefault("task", task)
    if count in parameters and arguments.get("task", task) == task:
        arguments.setdefault(count, num_classes)
    if multilabel and not _supports_multilabel(kind, arguments, parameters):
        other = arguments.get("task", task)
        given = "" if other == task else f", with task: {other} (leave it out)"
        raise ConfigError(f"{where}: does not support multi-label data{given}; use another metric")
    try:
        metric: Metric = kind(**arguments)
        if is_binary(metric) and not multilabel and num_classes > 2:  # AUROC and LogAUC would only score class 1
            raise ConfigError(f"supports only two classes, but the data have {num_classes}; remove task: binary")
        is_per_class(metric, num_classes, multilabel)
    except Exception as error:
        raise ConfigError(f"{where}: {first_line(error)}") from error
    return metric


def describe(name: str, spec: Spec, num_classes: int, multilabel: bool = False) -> Described:
    """Return the properties of a metric; arguments and errors as of ``build``."""
    metric = build(name, spec, num_classes, multilabel)
    higher_is_better = metric.higher_is_better
    if higher_is_better is None and type(metric).__module__.startswith("torchmetrics."):
        higher_is_better = not type(metric).__name__.endswith(_ERRORS)
    better: Literal["min", "max"] | None = None
    if higher_is_better is not None:
        better = "max" if higher_is_better else "min"
    return Described(is_per_class(metric, num_classes, multilabel), better)


def check_distinct(names: list[str]) -> None:
    """Refuse two values of the same name, for example a metric ``f1_red`` and the F1 score of the class ``red``."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{_KEY}: two values are named {twice[0]!r}; rename one of the metrics")


def _supports_multilabel(
    kind: Callable[..., Any], arguments: dict[str, Any], parameters: dict[str, inspect.Parameter]
) -> bool:
    """Whether a metric has a multi-label task; a binary one would accept the arrays and compute something else."""
    if "task" in parameters:
        return arguments["task"] == "multilabel" and "multilabel" in get_args(parameters["task"].annotation)
    return not kind.__name__.startswith(("Binary", "Multiclass"))


def is_per_class(metric: Metric, num_classes: int, multilabel: bool) -> bool:
    """Whether a metric has one value per class; found by computing it on synthetic values.

    Raises:
        ConfigError: If it does not return one number, or one per class.
    """
    labels = torch.arange(_TRIED) % num_classes
    one_hot = torch.nn.functional.one_hot(labels, num_classes)
    probs = torch.softmax(one_hot.float(), dim=1)
    with warnings.catch_warnings(action="ignore"):  # about classes without samples
        if multilabel:
            metric.update(one_hot if has_threshold(metric) else probs, one_hot)
        else:
            metric.update(probs[:, 1] if is_binary(metric) else probs, labels)
        value = metric.compute()
    metric.reset()
    counts = type(metric).__name__.endswith("StatScores")  # five numbers, even if there are five classes
    if not isinstance(value, Tensor) or counts or value.shape not in {(), (num_classes,)}:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"must return one number or one per class, got {shape}")
    return value.ndim == 1


def is_binary(metric: Metric) -> bool:
    """Whether a metric takes the probabilities of the second of two classes."""
    return type(metric).__name__.startswith("Binary")


def has_threshold(metric: Metric) -> bool:
    """Whether a metric thresholds probabilities, unlike AUROC, for example."""
    return hasattr(metric, "threshold")


def _parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a metric; torchmetrics' task wrappers have theirs in ``__new__``."""
    function = kind.__new__ if "__new__" in vars(kind) else kind.__init__
    named = dict(inspect.signature(function).parameters)
    return {name: parameter for name, parameter in named.items() if name not in {"self", "cls", "kwargs", "args"}}
