"""Restore the state of a metric from a checkpoint saved within an epoch."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

from imgcls.errors import ConfigError, first_line
from imgcls.metrics.build import is_per_class

State: TypeAlias = Mapping[str, Tensor | list[Tensor]]


def has_same_form(state: State, metric: Metric) -> bool:
    """Whether a state has the keys, shapes and dtypes of a metric; lists may hold tensors of any shape."""
    own = metric.metric_state
    return state.keys() == own.keys() and all(
        isinstance(own[key], list) or _form(value) == _form(own[key]) for key, value in state.items()
    )


def _form(value: Tensor | list[Tensor]) -> tuple[torch.Size, torch.dtype] | None:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else None


def restore_state(metric: Metric, state: State) -> None:
    """Set the state of a metric; lists that several processes concatenated to a tensor become lists again."""
    own, device = metric.metric_state, metric.device
    lists = {key for key, value in state.items() if isinstance(own[key], list) and isinstance(value, Tensor)}
    metric.load_state_dict({key: [value] if key in lists else value for key, value in state.items()})
    metric.to(device)


def check_state(name: str, metric: Metric, state: State, num_classes: int, multilabel: bool) -> None:
    """Refuse a state from which a metric cannot be computed.

    Raises:
        ConfigError: Names the metric.
    """
    copy = deepcopy(metric).cpu()
    copy.distributed_available_fn = lambda: False  # only one process restores the state
    try:
        restore_state(copy, state)
        is_per_class(copy, num_classes, multilabel)
    except Exception as error:
        raise ConfigError(f"the checkpoint's state of the metric {name}: {first_line(error)}") from error
