"""What validate, test and predict take from a checkpoint, where the user gives nothing else.

A checkpoint is data, perhaps a stranger's. Nothing that it says reaches the parser or names a class to look up: its
values are checked, and become objects by the fixed tables of data, metrics and models.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from imgcls.checkpoints.content import CONFIG_KEY, Content, data_state
from imgcls.config.class_path import Spec
from imgcls.config.overrides import value_at, with_values
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.transforms.recorded import KEY as _EVAL
from imgcls.data.transforms.recorded import recorded_steps
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.recorded import CLASSES, placeholder, recorded_dataset, recorded_folder
from imgcls.errors import ConfigError
from imgcls.metrics.recorded import recorded_metrics

log = logging.getLogger(__name__)

_MODEL, _DATA = "imgcls.ImageClassifier", "imgcls.ImageDataModule"
_KEPT = ("batch_size", "validation_split", "split_seed", "on_bad_image", "max_bad_fraction", "on_leak")  # of data
_METRICS_LOGGER = "MetricsLogger"
_DATASETS = ("train", "validation", "test", "predict")


class Given(Protocol):
    """The keys that the user gives; ``imgcls.cli.argv.GivenKeys``."""

    def __contains__(self, key: object) -> bool:
        """Whether a key has a value other than null."""

    def names(self, key: str) -> bool:
        """Whether a key is named, be it to give it a null."""

    def within(self, key: str) -> set[str]:
        """Names of the arguments that are given within the key of a class."""


class Recorded:
    """What a checkpoint says beside what the user gives.

    Args:
        content: The checkpoint.
        given: The keys that the user gives, which then count.
        edits: Dotted key -> value: items of the evaluation steps that the user changes.

    Raises:
        ConfigError: If the run had a model or data class of the user's own, which only --config may name.
    """

    def __init__(self, content: Content, given: Given, edits: Mapping[str, Any] | None = None) -> None:
        self.given = given
        self._config = _recorded_config(content)
        self._steps = data_state(content).get("eval")
        self._edits = dict(edits or {})
        self._data = _arguments(self._config.get("data") or {})
        for name, ours in (("model", _MODEL), ("data", _DATA)):
            class_path = (self._config.get(name) or {}).get("class_path") or ours
            if class_path != ours and f"{name}.class_path" not in given:
                raise ConfigError(
                    f"{name}: the checkpoint names {class_path}, and a class of your own is never loaded because a "
                    "checkpoint names it; add --config with the YAML of the run"
                )

    @property
    def numbers(self) -> dict[str, int | float | str]:
        """Dotted key -> value of the data's numbers and choices, and the seed; their types are checked."""
        values = {f"data.init_args.{key}": self._data[key] for key in _KEPT if key in self._data}
        seed = self._config.get("seed_everything")
        if isinstance(seed, int) and not isinstance(seed, bool):
            values["seed_everything"] = seed
        return {key: value for key, value in values.items() if not self.given.names(key)}

    def stand_ins(self) -> dict[str, Any]:
        """Return the configuration of datasets of which the user gives some arguments, with our words in the others."""
        specs = {name: placeholder(spec["class_path"]) for name, spec in self._partly_given().items()}
        return {"data": {"init_args": {"dataset_classes": specs}}} if specs else {}

    def restore(self, data: ImageDataModule, parsed: Mapping[str, Any]) -> None:
        """Give the data the datasets and evaluation steps that the user does not give.

        Args:
            data: The data, as made of what the user gives.
            parsed: The configuration that it is made of.
        """
        for name, dataset in self._datasets(parsed).items():
            data.splitter.replace(name, dataset)
        if self._steps is not None and not self.given.names(_EVAL):
            data.evaluate_by(self._edited(recorded_steps(self._steps)))

    @property
    def metrics(self) -> dict[str, Spec] | None:
        """The metrics, None for the default ones."""
        callbacks = (self._config.get("trainer") or {}).get("callbacks") or []
        for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
            if str(callback.get("class_path", "")).rpartition(".")[2] == _METRICS_LOGGER:
                metrics = _arguments(callback).get("metrics")
                return None if metrics is None else recorded_metrics(metrics)
        return None

    def _edited(self, steps: list[Spec]) -> list[Spec]:
        config = {"data": {"init_args": {"augmentations": {"eval": steps}}}}
        edited: list[Spec] = value_at(with_values(config, self._edits, "command line"), _EVAL)
        return edited

    def _partly_given(self) -> dict[str, dict[str, Any]]:
        """Return the recorded datasets of our classes of which the user gives arguments, and not the class."""
        specs = (self._data.get("dataset_classes") or {}).items()
        ours = {name: spec for name, spec in specs if isinstance(spec, dict) and spec.get("class_path") in CLASSES}
        return {
            name: spec
            for name, spec in ours.items()
            if self.given.within(_key(name)) and f"{_key(name)}.class_path" not in self.given
        }

    def _datasets(self, parsed: Mapping[str, Any]) -> dict[str, ImageDataset]:
        recorded, partly = self._data.get("dataset_classes") or {}, self._partly_given()
        found: dict[str, ImageDataset | None] = {}
        for name in _DATASETS:
            key = _key(name)
            if name in partly:
                typed = value_at(parsed, f"{key}.init_args")
                given = {argument: typed[argument] for argument in self.given.within(key)}
                found[name] = _changed_dataset(partly[name], given, key)
            elif not self.given.names(key) and not self.given.within(key):
                found[name] = _dataset(name, recorded.get(name))
        return {name: dataset for name, dataset in found.items() if dataset is not None}


def _changed_dataset(spec: Mapping[str, Any], given: Mapping[str, Any], key: str) -> ImageDataset:
    """Make a recorded dataset with the arguments that the user gives in place of its own."""
    class_path = spec["class_path"]
    dataset = recorded_dataset(class_path, {**_arguments(spec), **given}, key)
    if dataset is None:
        raise ConfigError(
            f"{key}: the checkpoint names a dataset that is not on this machine, and none is fetched because a "
            f"checkpoint names it; give it whole, with all its arguments: --{key.replace('.init_args', '', 1)}="
            f"'{{class_path: {class_path}, init_args: {{name: …}}}}'"
        )
    return dataset


def _dataset(name: str, spec: Any) -> ImageDataset | None:
    if not isinstance(spec, dict):
        return recorded_folder(spec) if isinstance(spec, str) else None
    class_path = str(spec.get("class_path"))
    dataset = recorded_dataset(class_path, _arguments(spec), _key(name)) if class_path in CLASSES else None
    if dataset is None:
        log.info("%s: the checkpoint names the class %s, which only --config may load", name, class_path)
    return dataset


def _key(name: str) -> str:
    return f"data.init_args.dataset_classes.{name}"


def _recorded_config(content: Content) -> dict[str, Any]:
    if CONFIG_KEY in content:
        config: dict[str, Any] = json.loads(content[CONFIG_KEY])
        return config
    # a run of the Python API: Lightning's own record of the arguments
    return {
        "model": {"init_args": content.get("hyper_parameters") or {}},
        "data": {"init_args": content.get("datamodule_hyper_parameters") or {}},
    }


def _arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    return section.get("init_args") or {}
