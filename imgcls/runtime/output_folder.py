"""A folder that a command writes: hidden until it is complete, and replaced only where it is the command's own."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import PARTIAL, hidden, naming


class FolderKind(NamedTuple):
    """What a folder holds, in a sentence, and the file by which such a folder is recognised."""

    name: str
    marker: str


EXPORT = FolderKind("an export", "export.json")
EXPLANATIONS = FolderKind("explanations", "explanations.csv")


def default_explanations(run_folder: Path | None) -> Path:
    """Return the folder of explanations without ``--output``."""
    return (run_folder or Path()) / "explanations"


def refuse_folder(folder: Path, overwrite: bool, kind: FolderKind) -> None:
    """Refuse a folder that exists, unless it is empty, or of the same kind and may be replaced.

    Raises:
        ConfigError: Says what to type.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    is_folder = folder.is_dir() and not folder.is_symlink()
    if is_folder and not any(folder.iterdir()):
        return
    if not is_folder or not (folder / kind.marker).is_file():
        raise ConfigError(f"--output {folder}: exists and is not the folder of {kind.name}; give another folder")
    if not overwrite:
        raise ConfigError(f"{folder} exists; add --overwrite to replace it, or --output FOLDER to write another")


@contextmanager
def writing_folder(target: Path, overwrite: bool, kind: FolderKind) -> Iterator[Path]:
    """Yield a hidden folder beside the target that becomes the target if the block succeeds, else is removed.

    Raises:
        ConfigError: If the target exists and may not be replaced, or its parent cannot be written to.
        WriteError: If the disk is full.
    """
    refuse_folder(target, overwrite, kind)
    partial = hidden(target, f".{secrets.token_hex(6)}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"--output {target}: cannot write to the folder {target.parent} ({error.strerror}); give another folder"
        ) from error
    old = hidden(target, f".{secrets.token_hex(6)}.old")
    try:
        with naming(target):
            yield partial
            refuse_folder(target, overwrite, kind)  # it may have been written in the meantime
            if target.exists():
                target.rename(old)
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
