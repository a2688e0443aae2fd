"""Write a folder as a whole: it is hidden until it is complete."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgcls.errors import ConfigError
from imgcls.export.formats import refuse_folder
from imgcls.runtime.atomic_files import PARTIAL, hidden, naming


@contextmanager
def writing_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder beside the target that becomes the target if the block succeeds, else is removed.

    Args:
        target: The folder; its parent is made.
        overwrite: Whether it may replace an earlier export.

    Raises:
        ConfigError: If the target exists and may not be replaced, or its parent cannot be written to.
        WriteError: If the disk is full.
    """
    refuse_folder(target, overwrite)
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
            refuse_folder(target, overwrite)  # it may have been written in the meantime
            if target.exists():
                target.rename(old)
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
