"""Check the metric specs of a checkpoint: only torchmetrics' classification metrics with bounded arguments."""

import logging
from collections.abc import Mapping
from typing import Any

import torchmetrics.classification

from imgcls.config.class_path import Spec
from imgcls.config.safe_values import is_safe_value
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

# not the text metrics, which download models, nor the wrappers, which take other metrics
_NAMES = frozenset(torchmetrics.classification.__all__)
_PACKAGES = {"", "torchmetrics", "torchmetrics.classification"}
_LARGEST = 2**16  # classes, thresholds, bins
_MOST = 100


def metrics_in(config: Mapping[str, Any]) -> dict[str, Spec] | None:
    """Return the metric specs of the configuration in a checkpoint; None for the default metrics.

    Raises:
        ConfigError: As ``recorded_metrics``.
    """
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if str(callback.get("class_path", "")).rpartition(".")[2] == "MetricsLogger":
            metrics = (callback.get("init_args") or {}).get("metrics")
            return None if metrics is None else recorded_metrics(metrics)
    return None


def recorded_metrics(specs: Any) -> dict[str, Spec]:
    """Return the specs of known classes; log the others.

    Raises:
        ConfigError: If a spec or an argument is malformed.
    """
    if not isinstance(specs, dict) or len(specs) > _MOST:
        raise ConfigError(f"trainer.callbacks: the checkpoint's metrics must be a mapping of at most {_MOST}")
    known = {str(name): _spec(spec, str(name)) for name, spec in specs.items()}
    for name in [name for name, spec in known.items() if spec is None]:
        log.info("metric %s: ignored, because its class is not in torchmetrics; add --config RUN/config.yaml", name)
    return {name: spec for name, spec in known.items() if spec is not None}


def _spec(spec: Any, name: str) -> Spec | None:
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise ConfigError(f"metric {name}: the checkpoint's value must be {{class_path, init_args}}, got {spec!r:.80}")
    package, _, kind = spec["class_path"].rpartition(".")
    if package not in _PACKAGES or kind not in _NAMES:
        return None
    arguments = spec.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"metric {name}: init_args must be named values, got {arguments!r:.80}")
    for key, value in arguments.items():
        if not all(is_safe_value(item, _LARGEST) for item in (value if isinstance(value, list) else [value])):
            raise ConfigError(f"metric {name}: {key} must be numbers up to {_LARGEST} or a word, got {value!r:.80}")
    return {"class_path": f"torchmetrics.classification.{kind}", "init_args": dict(arguments)}
