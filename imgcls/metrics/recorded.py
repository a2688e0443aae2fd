"""The metrics that a checkpoint records, from the fixed table of torchmetrics' classification metrics."""

import logging
from typing import Any

import torchmetrics.classification

from imgcls.config.class_path import Spec
from imgcls.config.plain_values import is_plain
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

# those of text would fetch models; the wrappers take other metrics
_NAMES = frozenset(torchmetrics.classification.__all__)
_PACKAGES = {"", "torchmetrics", "torchmetrics.classification"}
_LARGEST = 2**16  # classes, thresholds, bins
_MOST = 100


def recorded_metrics(specs: Any) -> dict[str, Spec]:
    """Return the specs whose class is of the table, with plain values; of the others a line is logged.

    Raises:
        ConfigError: If they are no specs at all.
    """
    if not isinstance(specs, dict) or len(specs) > _MOST:
        raise ConfigError(f"trainer.callbacks: the checkpoint's metrics must be a mapping of at most {_MOST}")
    known = {str(name): _spec(spec, str(name)) for name, spec in specs.items()}
    for name in [name for name, spec in known.items() if spec is None]:
        log.info("metric %s: the checkpoint names a class which only --config may load; it is left out", name)
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
        if not all(is_plain(item, _LARGEST) for item in (value if isinstance(value, list) else [value])):
            raise ConfigError(f"metric {name}: {key} must be numbers up to {_LARGEST} or a word, got {value!r:.80}")
    return {"class_path": f"torchmetrics.classification.{kind}", "init_args": dict(arguments)}
