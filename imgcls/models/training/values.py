"""Values of the model's own sections, checked where they enter."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from imgcls.errors import ConfigError

_AT_LEAST_0 = (lambda value: value >= 0, "at least 0")
_ABOVE_0 = (lambda value: value > 0, "above 0")
_SHARE = (lambda value: 0 <= value <= 1, "at least 0, and at most 1")
_RULES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": _ABOVE_0,
    "weight_decay": _AT_LEAST_0,
    "layer_decay": (lambda value: 0 < value <= 1, "above 0, and at most 1"),
    "head_multiplier": _ABOVE_0,
    "momentum": _AT_LEAST_0,
    "betas": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "eps": _ABOVE_0,
    "warmup_epochs": _AT_LEAST_0,
    "factor": (lambda value: 0 < value < 1, "above 0 and below 1"),
    "step_epochs": _ABOVE_0,
    "patience": _AT_LEAST_0,
    "label_smoothing": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "focal_gamma": _AT_LEAST_0,
    "class_weights": _ABOVE_0,
    "mixup": _AT_LEAST_0,
    "cutmix": _AT_LEAST_0,
    "probability": _SHARE,
}


def check_needed(values: Mapping[str, Any], needed: Iterable[str], where: str) -> None:
    """Refuse a null, which the parser lets through from a file, where a number is needed.

    Raises:
        ConfigError: Names the key.
    """
    for name in needed:
        if values[name] is None:
            raise ConfigError(f"{where}.{name}: null; give a number")


def check_numbers(values: Mapping[str, Any], where: str) -> None:
    """Refuse numbers that are not finite, or outside their range; nulls, names and keys without a rule pass.

    Raises:
        ConfigError: Names the key, its value and the rule.
    """
    for name, value in values.items():
        if name not in _RULES or value is None or isinstance(value, str):
            continue
        fits, rule = _RULES[name]
        numbers = value if isinstance(value, (tuple, list)) else [value]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError(f"{where}.{name}: {value}; it must be a finite number")
        if not all(map(fits, numbers)):
            raise ConfigError(f"{where}.{name}: {value}; it must be {rule}")
