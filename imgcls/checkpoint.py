"""Checkpoint files: written so that a crash leaves the old or the new one, read without running anything in them."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from imgcls.errors import ConfigError

Content = dict[str, Any]

CONFIG_KEY = "imgcls_config"
PARTIAL = ".partial"


def read_checkpoint(path: str | os.PathLike[str]) -> Content:
    """Read a checkpoint; tensors stay on disk until they are used.

    Raises:
        ConfigError: If the file is missing, truncated, damaged, no checkpoint of imgcls, or carries code.
    """
    _check_file(path)
    try:
        content: Content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{os.fspath(path)}: refused: it holds Python objects, which could run code; a checkpoint of imgcls holds "
            "tensors and plain values alone"
        ) from error
    except (RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        raise ConfigError(f"{os.fspath(path)}: damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or not {"state_dict", "imgcls"} <= content.keys():
        raise ConfigError(f"{os.fspath(path)}: is not a checkpoint of imgcls")
    return content


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint file is whole: every part is there and has the checksum that was written."""
    try:
        _check_file(path)
    except ConfigError:
        return False
    return True


def _check_file(path: str | os.PathLike[str]) -> None:
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{path}: no such checkpoint file")
    if file.stat().st_size == 0:
        raise ConfigError(f"{path}: the file is empty")
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # torch itself checks no checksum
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise ConfigError(f"{path}: truncated, or not a checkpoint: {error}") from error
    if broken:
        raise ConfigError(f"{path}: damaged: wrong checksum in {broken}")


def data_state(content: Content) -> dict[str, Any]:
    """Return what the datamodule put into a checkpoint, empty if it put nothing."""
    for value in content.values():
        if isinstance(value, dict) and {"class_names", "eval", "split"} <= value.keys():
            return value
    return {}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, and renames; so the target is always whole.

    The temporary file lies in the target's folder: a rename across file systems would copy, and could be torn.

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
        partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(target.parent)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain values are ever loaded."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        return read_checkpoint(path)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
