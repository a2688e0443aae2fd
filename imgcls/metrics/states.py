"""The state of a metric that a checkpoint keeps, from which a run goes on within an epoch."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

from imgcls.errors import ConfigError, first_line
from imgcls.metrics.build import is_per_class

State: TypeAlias = Mapping[str, Tensor | list[Tensor]]


def is_like(state: State, metric: Metric) -> bool:
    """Whether a state has the keys, shapes and types of a metric's own; what is collected may have any shape."""
    own = metric.metric_state
    return state.keys() == own.keys() and all(
        isinstance(own[key], list) or _form(value) == _form(own[key]) for key, value in state.items()
    )


def _form(value: Tensor | list[Tensor]) -> tuple[torch.Size, torch.dtype] | None:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else None


def set_state(metric: Metric, state: State) -> None:
    """Let a metric go on from a state."""
    for key, value in state.items():
        items = value if isinstance(value, list) else [value]  # of several processes, what is collected is joined
        items = [item.to(metric.device) for item in items]
        setattr(metric, key, items if isinstance(metric.metric_state[key], list) else items[0])
    metric._update_count = 1  # noqa: SLF001 - else it warns that it has seen nothing


def try_state(name: str, metric: Metric, state: State, num_classes: int, multilabel: bool) -> None:
    """Refuse a state with which a metric cannot compute.

    Raises:
        ConfigError: Names the metric.
    """
    tried = deepcopy(metric).cpu()
    tried.distributed_available_fn = lambda: False  # one process alone takes the state
    try:
        set_state(tried, state)
        is_per_class(tried, num_classes, multilabel)
    except Exception as error:
        raise ConfigError(f"the checkpoint's state of the metric {name}: {first_line(error)}") from error
