"""Serialize configuration values to what ``torch.load(weights_only=True)`` reads."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

_PACKAGES = (
    *("imgcls", "torch", "torchvision", "lightning", "transformers", "albumentations", "torchmetrics", "pillow"),
    *("timm", "onnx", "onnxruntime", "onnxscript"),  # extras
)


def serialize(value: Any) -> Any:
    """Convert a value to dicts, lists, strings and numbers; any other object becomes its class path."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {str(key): serialize(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [serialize(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.path.abspath(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {key: serialize(item) for key, item in vars(value).items()}
    return f"{type(value).__module__}.{type(value).__qualname__}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that affect a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
