"""The configuration that a checkpoint implies for validate, test and predict.

A checkpoint is data, perhaps a stranger's: only what describes the model and where its data lie is taken from it, and
no class outside imgcls, albumentations and torchmetrics is ever loaded because a checkpoint names it.
"""

import json
import logging
import os
from collections.abc import Container
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask a package index for news

import albumentations
import torchmetrics.classification

from imgcls.checkpoints.io import CONFIG_KEY, Content, data_state
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import is_utf8

log = logging.getLogger(__name__)

_MODEL, _DATA = "imgcls.ImageClassifier", "imgcls.ImageDataModule"
_OUR_DATASETS = (  # they read files of this machine, and run nothing that lies there
    "imgcls.FolderImageDataset",
    "imgcls.CsvImageDataset",
    "imgcls.ShardImageDataset",
    "imgcls.DigitsDataset",
    "imgcls.HubImageDataset",
)
_KEPT = ("batch_size", "validation_split", "split_seed", "on_bad_image", "max_bad_fraction", "on_leak")  # of data
_EVAL = "data.init_args.augmentations.eval"
_METRICS_LOGGER = "MetricsLogger"
_DATASETS = ("train", "validation", "test", "predict")


def evaluation_config(content: Content, given: Container[str]) -> dict[str, Any]:
    """Return the part of a checkpoint's configuration that an evaluation takes over.

    Args:
        content: The checkpoint.
        given: The keys that the user gives a value, which then speaks where the checkpoint may not.

    Raises:
        ConfigError: If the checkpoint needs a class that is not loaded from a checkpoint.
    """
    recorded = _recorded_config(content)
    model, data = recorded.get("model") or {}, recorded.get("data") or {}
    for name, section, ours in (("model", model, _MODEL), ("data", data, _DATA)):
        class_path = section.get("class_path", ours)
        _require(class_path == ours or f"{name}.class_path" in given, class_path, name)
    config: dict[str, Any] = {"data": {"init_args": _data_arguments(content, _arguments(data), given)}}
    # nothing of the model: it is built from the checkpoint's own record of the network
    if isinstance(recorded.get("seed_everything"), int):
        config["seed_everything"] = recorded["seed_everything"]
    return config


def recorded_metrics(content: Content) -> dict[str, Any] | None:
    """Return the metric specs of a checkpoint, None for the default metrics."""
    callbacks = (_recorded_config(content).get("trainer") or {}).get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if str(callback.get("class_path", "")).rpartition(".")[2] == _METRICS_LOGGER:
            metrics = _arguments(callback).get("metrics")
            return _trusted_metrics(metrics) if isinstance(metrics, dict) else None
    return None


def _recorded_config(content: Content) -> dict[str, Any]:
    if CONFIG_KEY in content:
        config: dict[str, Any] = json.loads(content[CONFIG_KEY])
        return config
    # a run of the Python API: Lightning's own record of the arguments
    return {
        "model": {"init_args": content.get("hyper_parameters") or {}},
        "data": {"init_args": content.get("datamodule_hyper_parameters") or {}},
    }


def _data_arguments(content: Content, recorded: dict[str, Any], given: Container[str]) -> dict[str, Any]:
    # class names are not among them: as text of a configuration, some would be read as something else
    arguments: dict[str, Any] = {key: recorded[key] for key in _KEPT if key in recorded}
    datasets = recorded.get("dataset_classes") or {}
    keys = {name: f"data.init_args.dataset_classes.{name}" for name in _DATASETS}
    arguments["dataset_classes"] = {
        name: _trusted_dataset(name, datasets.get(name), key in given)
        for name, key in keys.items()
        if f"{key}.class_path" not in given  # the parser would add the arguments of the checkpoint's
    }
    steps = data_state(content).get("eval")
    if steps is not None and _EVAL not in given:
        for class_path in _class_paths(steps):
            _require(_is_transform(class_path), class_path, _EVAL)
        arguments["augmentations"] = {"eval": steps}
    return arguments


def _trusted_dataset(name: str, spec: Any, given: bool) -> Any:
    if isinstance(spec, dict):
        class_path = str(spec.get("class_path"))
        if class_path in _OUR_DATASETS and not _class_paths(spec.get("init_args")) and _is_local(spec):
            return spec
        if not given:
            log.info("%s: the checkpoint names the class %s, which only --config may load", name, class_path)
        return None
    if not isinstance(spec, str) or not ("/" in spec or "\\" in spec):
        return None
    if not is_utf8(spec):
        log.info("%s: the checkpoint names %r, which a configuration cannot hold; type it again to use it", name, spec)
        return None
    return spec


def _is_local(spec: dict[str, Any]) -> bool:
    """Whether a dataset lies on this machine: a checkpoint must not make anyone load one of the Hub."""
    name = _arguments(spec).get("name")
    return spec["class_path"] != "imgcls.HubImageDataset" or (os.path.isabs(str(name)) and os.path.exists(str(name)))


def _trusted_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    trusted = {name: spec for name, spec in metrics.items() if all(map(_is_metric, _class_paths(spec)))}
    for name in metrics.keys() - trusted.keys():
        log.info("metric %s: the checkpoint names a class which only --config may load; it is left out", name)
    return trusted


def _require(trusted: bool, class_path: object, where: str) -> None:
    if not trusted:
        raise ConfigError(
            f"{where}: the checkpoint names {class_path}, and a class of your own is never loaded because a checkpoint "
            "names it; add --config with the YAML of the run"
        )


def _is_transform(class_path: str) -> bool:
    """Whether a path names a transform of albumentations, by what it is: a prefix would let functions in."""
    if class_path == "albumentations.pytorch.ToTensorV2":
        return True
    package, _, name = class_path.rpartition(".")
    found = getattr(albumentations, name, None) if package in {"", "albumentations"} else None
    return isinstance(found, type) and issubclass(found, (albumentations.BasicTransform, albumentations.BaseCompose))


def _is_metric(class_path: str) -> bool:
    """Whether a path names a classification metric of torchmetrics; those of text would fetch models."""
    package, _, name = class_path.rpartition(".")
    known = package in {"", "torchmetrics", "torchmetrics.classification"}
    return known and name in torchmetrics.classification.__all__


def _class_paths(value: Any) -> list[str]:
    """All class paths within a value."""
    if isinstance(value, dict):
        own = value.get("class_path")
        found = [str(own)] if own is not None else []
        return found + [path for item in value.values() for path in _class_paths(item)]
    if isinstance(value, list):
        return [path for item in value for path in _class_paths(item)]
    return []


def _arguments(section: dict[str, Any]) -> dict[str, Any]:
    return section.get("init_args") or {}
