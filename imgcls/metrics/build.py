"""From specs to metrics of torchmetrics, each tried on made-up values before it is used."""

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
_ERRORS = "EER"  # of torchmetrics' classes that do not say so, those that are better when they are low
_OF_EVERY_METRIC = (  # what torchmetrics' base class takes by **kwargs (1.9)
    "compute_on_cpu",
    "compute_with_cache",
    "dist_sync_fn",
    "dist_sync_on_step",
    "distributed_available_fn",
    "process_group",
    "sync_on_compute",
)
_TRIED = 16  # images that a metric is tried on: one of each class would be a table of classes x classes


class Described(NamedTuple):
    """What is known of a metric before it is used.

    Args:
        per_class: Whether it gives a number for each class, and not one.
        better: ``min`` if it is better when it is low, ``max`` if when high; None if nobody says.
    """

    per_class: bool
    better: Literal["min", "max"] | None


def check_spec(name: str, spec: Spec) -> None:
    """Refuse a spec that names no class, or an argument that the class does not take; and a name that cannot be logged.

    Raises:
        ConfigError: Names the metric.
    """
    if name == "loss":
        raise ConfigError(f"{_KEY}: the name 'loss' is that of the model's loss; give the metric another")
    if not name or set(name) & set("./{}"):
        raise ConfigError(f"{_KEY}: {name!r} is no name for a metric; give it one of letters, digits and _")
    where = f"{_KEY}.{name}"
    class_path = class_path_of(spec, where)
    known = [*_parameters(find_class(class_path, _PACKAGE, where)), *_OF_EVERY_METRIC]
    check_arguments(spec.get("init_args") or {}, known, f"{where}: {class_path}")


def build(name: str, spec: Spec, num_classes: int, multilabel: bool = False) -> Metric:
    """Build a metric; task and number of classes or labels are filled in.

    Args:
        name: Its name, for messages.
        spec: Its ``{class_path, init_args}``.
        num_classes: Number of classes.
        multilabel: Whether an image may have several labels.

    Raises:
        ConfigError: If it cannot be built, or cannot score such labels.
    """
    where = f"{_KEY}.{name}: {spec['class_path']}"
    kind = find_class(spec["class_path"], _PACKAGE, f"{_KEY}.{name}")
    parameters = _parameters(kind)
    arguments = _filled_in(dict(spec.get("init_args") or {}), parameters, num_classes, multilabel)
    if multilabel and not _scores_several(kind, arguments, parameters):
        raise ConfigError(f"{where}: cannot score images of several labels{_given(arguments)}; take another metric")
    try:
        metric: Metric = kind(**arguments)
        if is_binary(metric) and not multilabel and num_classes > 2:  # AUROC and LogAUC would score class 1 alone
            raise ConfigError(f"scores two classes, the data have {num_classes}; leave out task: binary")
        is_per_class(metric, num_classes, multilabel)
    except Exception as error:
        raise ConfigError(f"{where}: {first_line(error)}") from error
    return metric


def describe(name: str, spec: Spec, num_classes: int, multilabel: bool = False) -> Described:
    """Describe a metric; arguments and errors are those of ``build``."""
    metric = build(name, spec, num_classes, multilabel)
    better_when_high = metric.higher_is_better
    if better_when_high is None and type(metric).__module__.startswith("torchmetrics."):
        better_when_high = not type(metric).__name__.endswith(_ERRORS)
    better: Literal["min", "max"] | None = None
    if better_when_high is not None:
        better = "max" if better_when_high else "min"
    return Described(is_per_class(metric, num_classes, multilabel), better)


def check_distinct(names: list[str]) -> None:
    """Refuse metrics that would log two values under one name, as a metric ``f1_red`` beside F1 scores by class.

    Raises:
        ConfigError: Names the name.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"{_KEY}: two values would be called {twice[0]!r}; give one of the metrics another name")


def _filled_in(
    arguments: dict[str, Any], parameters: dict[str, inspect.Parameter], num_classes: int, multilabel: bool
) -> dict[str, Any]:
    task, count = ("multilabel", "num_labels") if multilabel else ("multiclass", "num_classes")
    if "task" in parameters:
        arguments.setdefault("task", task)
    if count in parameters and arguments.get("task", task) == task:
        arguments.setdefault(count, num_classes)
    return arguments


def _scores_several(
    kind: Callable[..., Any], arguments: dict[str, Any], parameters: dict[str, inspect.Parameter]
) -> bool:
    """Whether a metric has a task of several labels; one of two classes would take their arrays, and mean another."""
    if "task" in parameters:
        return arguments["task"] == "multilabel" and "multilabel" in get_args(parameters["task"].annotation)
    return not kind.__name__.startswith(("Binary", "Multiclass"))


def _given(arguments: dict[str, Any]) -> str:
    task = arguments.get("task", "multilabel")
    return "" if task == "multilabel" else f", with task: {task} (leave it out)"


def is_per_class(metric: Metric, num_classes: int, multilabel: bool) -> bool:
    """Compute the metric once on made-up values: what it cannot do shows here and not after an epoch."""
    labels = torch.arange(_TRIED) % num_classes
    one_hot = torch.nn.functional.one_hot(labels, num_classes)
    probs = torch.softmax(one_hot.float(), dim=1)
    with warnings.catch_warnings(action="ignore"):  # of classes that have none of these values
        if multilabel:
            metric.update(one_hot if has_threshold(metric) else probs, one_hot)
        else:
            metric.update(probs[:, 1] if is_binary(metric) else probs, labels)
        value = metric.compute()
    metric.reset()
    counts = type(metric).__name__.endswith("StatScores")  # five, which may be as many as there are classes
    if not isinstance(value, Tensor) or counts or value.shape not in {(), (num_classes,)}:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"gives {shape}; one number, or one for each class, can be logged")
    return value.ndim == 1


def is_binary(metric: Metric) -> bool:
    """Whether a metric scores the second of two classes."""
    return type(metric).__name__.startswith("Binary")


def has_threshold(metric: Metric) -> bool:
    """Whether a metric turns probabilities into decisions; others, such as AUROC, score the probabilities."""
    return hasattr(metric, "threshold")


def _parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Arguments of a metric; those of torchmetrics' task wrappers stand in ``__new__``."""
    function = kind.__new__ if "__new__" in vars(kind) else kind.__init__
    named = dict(inspect.signature(function).parameters)
    return {name: parameter for name, parameter in named.items() if name not in {"self", "cls", "kwargs", "args"}}
