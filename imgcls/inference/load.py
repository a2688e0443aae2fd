"""Load a classifier from a checkpoint or a run folder."""

import os
from pathlib import Path

import torch
import yaml

from imgcls.checkpoints.run_folder import BEST, CHECKPOINTS
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.model_setup import set_up_evaluated
from imgcls.commands.resume import open_start
from imgcls.config.class_path import Spec, find_class
from imgcls.config.overrides import value_at
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.loading.workers import FORK
from imgcls.data.transforms.from_checkpoint import KEY as EVAL
from imgcls.errors import ConfigError, first_line
from imgcls.inference.classifier import Classifier
from imgcls.models.classifier import ImageClassifier
from imgcls.models.from_checkpoint import recorded_arguments

_Path = str | os.PathLike[str]


def load(
    path: _Path,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    config: _Path | None = None,
    precision: str | None = None,
) -> Classifier:
    """Load a trained classifier.

    The checkpoint may come from a stranger: only tensors and plain values are read, and no class that it names is
    imported, unless ``config`` names it.

    Args:
        path: A checkpoint, or a run folder, whose best.ckpt is loaded.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        batch_size: Images per batch; None for that of the run.
        num_workers: Processes that load images; 0 loads them in this process. None uses all but one of the available
            cores on Linux, at most 16, and 0 elsewhere, where each process would import the calling script again.
        config: The config.yaml of the run, if its model class or its evaluation transforms are your own.
        precision: Number format of the computation, such as ``bf16-mixed``; None: float32, as in the commands.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        ConfigError: If the file is missing, damaged or not a checkpoint of imgcls, names classes of your own, or this
            machine has no such device.
    """
    found = _device(device)
    start = open_start(_checkpoint(path))
    kind, steps = (ImageClassifier, None) if config is None else _own_classes(config)
    given = {"data.class_path"} | ({"model.class_path"} if config else set()) | ({EVAL} if steps else set())
    recorded = Recorded(start, given, {}, option="config={}")
    model = kind(**recorded_arguments(kind, start.content.get("hyper_parameters") or {}))
    kept = {key.removeprefix("data.init_args."): value for key, value in recorded.numbers.items() if "." in key}
    kept |= {} if batch_size is None else {"batch_size": batch_size}
    workers = 0 if num_workers is None and FORK is None else num_workers
    data = ImageDataModule(**kept, num_workers=workers)  # type: ignore[arg-type]  # their types are checked
    if steps:
        data.evaluate_by(steps)
    with torch.random.fork_rng(devices=[]):  # weights are drawn at random before they are loaded
        set_up_evaluated(model, data, start, recorded)
    model.load_state_dict(start.content["state_dict"])
    return Classifier(model, data, start, found, precision)


def _checkpoint(path: _Path) -> Path:
    """Return the checkpoint at a path, which may be a run folder."""
    if "://" in os.fspath(path):
        raise ConfigError(f"{path}: must be a local file; download it first")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return folder
    for file in (folder / CHECKPOINTS / BEST, folder / BEST):
        if file.is_file():
            return file
    raise ConfigError(f"{path}: this folder has no {CHECKPOINTS}/{BEST}; give a run folder or a checkpoint")


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device must be auto, cpu, cuda, cuda:N or mps, got {device}: {first_line(error)}"
        ) from error
    return found


def _own_classes(config: _Path) -> tuple[type[ImageClassifier], list[Spec] | None]:
    """Return the model class of a configuration file, and its list of evaluation transforms, None if it has none."""
    try:
        values = yaml.safe_load(Path(config).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"config: {config} cannot be read: {first_line(error)}") from error
    class_path = value_at(values, "model.class_path") or ImageClassifier.__name__
    kind = find_class(class_path, "imgcls", "model.class_path")
    if not (isinstance(kind, type) and issubclass(kind, ImageClassifier)):
        raise ConfigError(f"model.class_path must be a subclass of imgcls.ImageClassifier, got {class_path}")
    steps = value_at(values, EVAL)
    return kind, steps if isinstance(steps, list) else None
