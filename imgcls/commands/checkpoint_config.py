"""The configuration that validate, test and predict take from a checkpoint.

A checkpoint is untrusted data. None of its values reaches the parser or names a class to import: they are checked, and
data, metrics and models make objects of them by fixed tables of classes.
"""

import inspect
import json
import logging
import shlex
from collections.abc import Iterable, Mapping, Set
from typing import Any

from imgcls.checkpoints.content import CONFIG_KEY, Content, data_state
from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.commands.absolute_paths import make_arguments_absolute
from imgcls.commands.resume import Start
from imgcls.config.class_path import Spec
from imgcls.config.overrides import value_at, with_values
from imgcls.config.yaml_values import read_value
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.transforms.from_checkpoint import KEY as _EVAL
from imgcls.data.transforms.from_checkpoint import recorded_steps
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.from_checkpoint import CLASSES, recorded_dataset, recorded_folder
from imgcls.errors import ConfigError
from imgcls.metrics.from_checkpoint import metrics_in

log = logging.getLogger(__name__)

DEFAULT_CLASSES = {"model": "imgcls.ImageClassifier", "data": "imgcls.ImageDataModule"}
_KEPT = ("batch_size", "validation_split", "split_seed", "on_bad_image", "max_bad_fraction", "on_leak")  # of data
_DECODE = "data.init_args.decode"
_IMAGE_SIZE = "data.init_args.image_size"
_SPLITS = ("train", "validation", "test", "predict")


class Recorded:
    """The configuration of a checkpoint, for every key that the user does not give.

    Args:
        start: The checkpoint.
        given: The full dotted keys that the user gives, be it with a null.
        edits: Full dotted key -> text: items of the evaluation steps, and arguments of datasets, that the user changes.
        option: How the user gives a configuration file, for messages.

    Raises:
        ConfigError: If the run had a model or data class of the user, which only --config may name.
    """

    def __init__(self, start: Start, given: Set[str], edits: Mapping[str, str], option: str = "--config {}") -> None:
        self.given = given
        self._config = _recorded_config(start.content)
        state = data_state(start.content)
        self._steps = state.get("eval")
        self._decode = state.get("decode", "exact")
        folder = run_folder_of(start.path)
        file = str(folder / "config.yaml") if folder else "FILE.yaml"
        self._remedy = f"add {option.format(shlex.quote(file) if option.startswith('-') else repr(file))} to load it"
        self._edits = edits
        self._data = _arguments(self._config.get("data") or {})
        for section, ours in DEFAULT_CLASSES.items():
            class_path = (self._config.get(section) or {}).get("class_path") or ours
            if class_path != ours and f"{section}.class_path" not in given:
                raise ConfigError(f"{section}: the checkpoint uses your class {class_path}; {self._remedy}")

    @property
    def names_model(self) -> bool:
        """Whether the user names a model."""
        return "model.init_args.model_name" in self.given

    @property
    def numbers(self) -> dict[str, int | float | str]:
        """Dotted key -> value of the data's numbers and choices, and the seed; their types are checked."""
        values = {f"data.init_args.{key}": self._data[key] for key in _KEPT if key in self._data}
        seed = self._config.get("seed_everything")
        if isinstance(seed, int) and not isinstance(seed, bool):
            values["seed_everything"] = seed
        return {key: value for key, value in values.items() if key not in self.given}

    def changed(self, saved: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
        """Return those of the full dotted keys that the user gives with another value than the checkpoint's.

        ``saved`` is the configuration of the command as plain values.
        """
        found: dict[str, Any] = {}
        for key in keys:
            below = f"{key}."
            if edits := {other: text for other, text in self._edits.items() if other.startswith(below)}:
                found |= edits
            elif key in self.given or any(other.startswith(below) for other in self.given):
                value = value_at(saved, key)
                if value != value_at(self._config, key):
                    found[key] = value
        return found

    def value(self, key: str) -> Any:
        """Return a value of the checkpoint's configuration, None if it has none; not checked."""
        return value_at(self._config, key)

    def restore(self, data: ImageDataModule) -> None:
        """Give the data the datasets, decoding and evaluation steps of the checkpoint, where the user gives none."""
        for name in _SPLITS:
            if _key(name) not in self.given and (dataset := self._dataset(name)) is not None:
                data.splitter.replace(name, dataset)
        if _DECODE not in self.given:
            data.decode = self._decode
        if self._steps is None or _EVAL in self.given:
            return
        augmentations = self._data.get("augmentations")
        configured = augmentations.get("eval") if isinstance(augmentations, dict) else None
        if _IMAGE_SIZE in self.given and configured in (None, "pretrained"):  # made again for the size that is given
            data.evaluate_by(configured)
        else:
            data.evaluate_by(self._edited(recorded_steps(self._steps)))

    @property
    def metrics(self) -> dict[str, Spec] | None:
        """The metrics; None for the default ones."""
        return metrics_in(self._config)

    def _edited(self, steps: list[Spec]) -> list[Spec]:
        edits = {key: read_value(text) for key, text in self._edits.items() if key.startswith(f"{_EVAL}.")}
        config = {"data": {"init_args": {"augmentations": {"eval": steps}}}}
        edited: list[Spec] = value_at(with_values(config, edits, "command line"), _EVAL)
        return edited

    def _dataset(self, name: str) -> ImageDataset | None:
        key = _key(name)
        spec = (self._data.get("dataset_classes") or {}).get(name)
        start = f"{key}.init_args."
        edits = {other.removeprefix(start): text for other, text in self._edits.items() if other.startswith(start)}
        class_path = str(spec.get("class_path")) if isinstance(spec, dict) else None
        if isinstance(spec, dict) and class_path in CLASSES:
            return _known_dataset(class_path, _arguments(spec), edits, key)
        if edits:
            raise ConfigError(f"{key}: the checkpoint names no class with arguments; give the dataset whole")
        if class_path is not None:
            log.info("%s: the checkpoint uses your class %s; %s", name, class_path, self._remedy)
        return recorded_folder(spec) if isinstance(spec, str) else None


def _known_dataset(class_path: str, arguments: dict[str, Any], edits: dict[str, str], key: str) -> ImageDataset | None:
    """Make a recorded dataset of one of our classes, with the arguments that the user changes."""
    parameters = inspect.signature(CLASSES[class_path]).parameters
    kinds = {name: parameters[name].annotation if name in parameters else Any for name in edits}
    changed = {name: read_value(text, kinds[name]) for name, text in edits.items()}
    make_arguments_absolute(class_path, changed)
    dataset = recorded_dataset(class_path, arguments | changed, key)
    if dataset is not None:
        return dataset
    reason = f"{key}: the dataset of the checkpoint is not on this machine, and a checkpoint may not download it"
    option = key.replace(".init_args", "", 1)
    if edits:
        spec = f"{{class_path: {class_path}, init_args: {{name: …}}}}"
        raise ConfigError(f"{reason}; give it whole: --{option}='{spec}'")
    log.info("%s; give --%s", reason, option)
    return None


def _key(split: str) -> str:
    return f"data.init_args.dataset_classes.{split}"


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
