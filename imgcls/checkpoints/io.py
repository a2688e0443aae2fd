"""Checkpoint files: written so that a crash leaves the old or the new one, read without running anything in them."""

import lzma
import os
import pickle
import shlex
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from pydantic import BaseModel, Field, FiniteFloat, Json, PositiveInt, ValidationError

from imgcls.errors import ConfigError, first_line
from imgcls.runtime.atomic_files import replacing

Content = dict[str, Any]

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,  # of encryption, which a flipped bit says, and of torch
    ValueError,
    LookupError,
    EOFError,
    OSError,
)
"""What Python and torch raise of archives whose bytes are wrong."""

CONFIG_KEY = "imgcls_config"

_ABSENT: Any = None  # a default is not checked, a null in the file is
_CHANNELS = Field(min_length=3, max_length=3)


class DamagedError(ConfigError):
    """A checkpoint file whose bytes are not those that were written."""


class _Shape(BaseModel, strict=True, arbitrary_types_allowed=True, protected_namespaces=()):
    """What a part of a checkpoint must look like; keys that are not named here may stand beside."""


class _Network(_Shape):
    model_type: str


class _Preprocessing(_Shape, extra="forbid"):
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    shortest_edge: PositiveInt | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: Annotated[list[FiniteFloat], _CHANNELS]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], _CHANNELS]


class _Record(_Shape):
    model_name: str
    class_names: Annotated[list[str], Field(min_length=1)]
    network: _Network
    preprocessing: _Preprocessing
    precision: str | None = None
    multilabel: bool = False
    thresholds: list[Annotated[float, Field(ge=0, le=1)]] | None = None


class _Split(_Shape):
    train: list[str]
    validation: list[str]


class _DataState(_Shape):
    class_names: list[str]
    eval: list[dict[str, Any]]
    split: _Split


class _Class(_Shape):
    class_path: str = ""
    init_args: dict[str, Any] | None = None


class _DataArguments(_Shape):
    dataset_classes: dict[str, Any] | None = None


class _Data(_Shape):
    class_path: str = ""
    init_args: _DataArguments | None = None


class _Trainer(_Shape):
    callbacks: list[_Class] | _Class | None = None


class _Config(_Shape):
    model: _Class | None = None
    data: _Data | None = None
    trainer: _Trainer | None = None


class _Pace(_Shape, extra="forbid"):
    steps: int
    images: int


class _Count(_Shape):
    processed: int
    ready: int


class _Progress(_Shape):
    current: _Count


class _FitLoop(_Shape):
    epoch_progress: _Progress


class _Loops(_Shape):
    fit_loop: _FitLoop


class _Content(_Shape):
    imgcls: _Record
    state_dict: dict[str, torch.Tensor]
    imgcls_config: Json[_Config] = _ABSENT
    pace: _Pace = _ABSENT
    ImageDataModule: _DataState = _ABSENT
    hyper_parameters: dict[str, Any] | None = None
    datamodule_hyper_parameters: _DataArguments | None = None
    version: str = Field(alias="pytorch-lightning_version")
    epoch: int
    global_step: int
    loops: _Loops


def read_checkpoint(path: str | os.PathLike[str]) -> Content:
    """Read a checkpoint; tensors stay on disk until they are used.

    Raises:
        DamagedError: If the file is truncated or damaged.
        ConfigError: If it is missing, no checkpoint of imgcls, or carries code.
    """
    _check_file(path)
    try:
        content: Content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{os.fspath(path)}: refused: it holds Python objects, which could run code; a checkpoint of imgcls holds "
            "tensors and plain values alone"
        ) from error
    except _DAMAGED as error:
        raise DamagedError(f"{os.fspath(path)}: damaged: {first_line(error)}") from error
    _check_content(path, content)
    return content


def _check_content(path: str | os.PathLike[str], content: object) -> None:
    try:
        _Content.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if not _is_of_pydantic(str(part)))
        reason = first["msg"].partition(" or instance of ")[0].lower()
        what = f"{place}: {reason}" if place else reason
        raise ConfigError(f"{os.fspath(path)}: is not a checkpoint of imgcls: {what}") from error


def _is_of_pydantic(part: str) -> bool:
    """Whether a part of an error's place names a type of ours rather than a key."""
    return part.startswith("_") or "[" in part


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint file is whole: every part is there and has the checksum that was written."""
    try:
        _check_file(path)
    except ConfigError:
        return False
    return True


def _check_file(path: str | os.PathLike[str]) -> None:
    file = Path(path)
    if file.is_dir():
        raise ConfigError(f"{path}: is a folder; {_checkpoints_in(file)}")
    if not file.is_file():
        raise ConfigError(f"{path}: no such checkpoint file")
    if file.stat().st_size == 0:
        raise DamagedError(f"{path}: the file is empty")
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # torch itself checks no checksum
    except zipfile.BadZipFile as error:
        raise DamagedError(f"{path}: truncated, or not a checkpoint: {error}") from error
    except _DAMAGED as error:
        raise DamagedError(f"{path}: damaged: {first_line(error)}") from error
    if broken:
        raise DamagedError(f"{path}: damaged: wrong checksum in {broken}")


def _checkpoints_in(folder: Path) -> str:
    uses = {"best.ckpt": "to evaluate", "last.ckpt": "to go on with the training"}
    files = [path for name in uses for path in (folder / name, folder / "checkpoints" / name) if path.is_file()]
    if not files:
        return "type --ckpt_path FILE.ckpt"
    return "type " + ", ".join(f"--ckpt_path {shlex.quote(str(path))} {uses[path.name]}" for path in files)


def data_state(content: Content) -> dict[str, Any]:
    """Return what the datamodule put into a checkpoint, empty if it put nothing."""
    for value in content.values():
        if isinstance(value, dict) and {"class_names", "eval", "split"} <= value.keys():
            return value
    return {}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint so that the file is always whole.

    Args:
        config: The resolved configuration as JSON, kept in every checkpoint.
    """

    def __init__(self, config: str | None = None) -> None:
        self.config = config

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint to a local path; a URL goes Lightning's way."""
        if self.config is not None:
            checkpoint[CONFIG_KEY] = self.config
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain values are ever loaded."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        return read_checkpoint(path)
