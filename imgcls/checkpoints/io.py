"""Read and write checkpoint files: atomic writes, and reads that cannot run code."""

import errno
import hashlib
import io
import lzma
import os
import pickle
import shlex
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from imgcls.checkpoints.content import CONFIG_KEY, Content, check_content
from imgcls.errors import ConfigError, first_line, similar_path
from imgcls.runtime.atomic_files import replacing
from imgcls.runtime.signals import postponed

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,  # of torch, and of zipfile if a flipped bit means encryption
    ValueError,
    LookupError,
    EOFError,
    OSError,
)
"""Errors of Python and torch on damaged archives."""

_TENSORS = {"state_dict", "current_model_state", "averaging_state", "optimizer_states", "ImageDataModule"}
"""Keys of a checkpoint that never hold other objects than tensors and plain values, and may be large."""


class DamagedError(ConfigError):
    """A damaged checkpoint file."""


def read_checkpoint(path: str | os.PathLike[str]) -> Content:
    """Read a checkpoint; tensors are memory-mapped.

    Raises:
        DamagedError: If the file is truncated or damaged.
        ConfigError: If it is missing, cannot be read, is not a checkpoint of imgcls, or contains Python objects.
    """
    _check_file(path)
    try:
        content: Content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{os.fspath(path)}: refused: it holds Python objects, which could run code; a checkpoint of imgcls holds "
            "only tensors and plain values"
        ) from error
    except _DAMAGED as error:
        raise _fault(path, error) from error
    check_content(path, content)
    return content


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint file exists and all of its checksums are right."""
    try:
        _check_file(path)
    except ConfigError:
        return False
    return True


def checkpoint_id(path: str | os.PathLike[str]) -> str:
    """Return a digest of a checkpoint's content, of the checksums in the file's directory alone; quick at any size."""
    with zipfile.ZipFile(path) as archive:
        parts = [(item.filename.partition("/")[2], item.file_size, item.CRC) for item in archive.infolist()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _check_file(path: str | os.PathLike[str]) -> None:
    file = Path(path)
    if file.is_dir():
        raise ConfigError(f"{path}: is a folder; {_checkpoints_in(file)}")
    if not file.is_file():
        raise ConfigError(f"{path}: there is no such file{similar_path(path)}")
    if file.stat().st_size == 0:
        raise DamagedError(f"{path}: the file is empty")
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # torch does not verify checksums
    except zipfile.BadZipFile as error:
        raise DamagedError(f"{path}: truncated, or not a checkpoint: {error}") from error
    except _DAMAGED as error:
        raise _fault(path, error) from error
    if broken:
        raise DamagedError(f"{path}: damaged: wrong checksum in {broken}")


def _fault(path: str | os.PathLike[str], error: Exception) -> ConfigError:
    """Return the error to raise; a file that the system cannot read need not be damaged."""
    # EINVAL also means an offset before the start of the file, as in a damaged archive
    if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
        return ConfigError(f"{os.fspath(path)}: cannot be read: {error.strerror}")
    return DamagedError(f"{os.fspath(path)}: damaged: {first_line(error)}")


def _checkpoints_in(folder: Path) -> str:
    uses = {"best.ckpt": "to evaluate", "last.ckpt": "to resume training"}
    files = [path for name in uses for path in (folder / name, folder / "checkpoints" / name) if path.is_file()]
    if not files:
        return "type --ckpt_path FILE.ckpt"
    return "type " + ", ".join(f"--ckpt_path {shlex.quote(str(path))} {uses[path.name]}" for path in files)


def _check_plain(checkpoint: Mapping[str, Any]) -> None:
    """Refuse to save a checkpoint with objects of users' classes, which could not be loaded again.

    Raises:
        ConfigError: Names the key and the classes.
    """
    parts = {key: value for key, value in checkpoint.items() if key not in _TENSORS}
    for key, value in (*parts.pop("callbacks", {}).items(), *parts.items()):
        file = io.BytesIO()
        torch.save(value, file)
        file.seek(0)
        if found := torch.serialization.get_unsafe_globals_in_checkpoint(file):
            raise ConfigError(
                f"the checkpoint's {key} holds objects ({', '.join(sorted(found))}), which are never loaded; save "
                "only plain values and tensors"
            )


def write_checkpoint(content: Content, path: Path) -> None:
    """Write a checkpoint atomically; a file that tensors of the content are mapped from may be replaced."""
    with postponed(), replacing(path) as file:  # an exception within torch's writer aborts the process
        torch.save(content, file)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read each file once.

    Args:
        config: The resolved configuration as JSON, stored in every checkpoint.
        known: A file that was read already, and its content.
    """

    def __init__(self, config: str | None = None, known: tuple[Path, Content] | None = None) -> None:
        self.config = config
        self._checked = False
        self._read: dict[tuple[int, ...], Content] = {} if known is None else {_identity(known[0]): known[1]}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; URLs are left to Lightning."""
        if self.config is not None:
            checkpoint[CONFIG_KEY] = self.config
        if not self._checked:
            _check_plain(checkpoint)
            self._checked = True
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, target)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, always with ``weights_only=True``."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        content = self._read.pop(_identity(path), None)
        if content is None:
            content = read_checkpoint(path)
            self._read = {_identity(path): content}  # a fit evaluates best.ckpt on validation, and then on test
        return dict(content)


def _identity(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return what differs if a file is replaced; empty if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
