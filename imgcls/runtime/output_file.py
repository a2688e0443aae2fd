"""The output file of a command: check that it can be written, and lock it while it is."""

import glob
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import PARTIAL, hidden, sweep


def check_output(path: str | os.PathLike[str], option: str = "--output", example: str = "predictions.csv") -> None:
    """Check before the work starts that a file can be written; makes its folder.

    Args:
        path: The file as given; with a trailing slash it is a folder, whether or not it exists.
        option: The option it was given for.
        example: Example of a file name.

    Raises:
        ConfigError: If it is a folder or a device, its name is too long, or its folder cannot be made or written to.
    """
    file = Path(path).expanduser()
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        pass  # checked below
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written: {error.strerror}") from error
    if os.path.isdir(file) or os.fspath(path).endswith(os.sep):
        raise ConfigError(f"{option} {path}: is a folder; give a file, for example {file / example}")
    if os.path.exists(file) and not os.path.isfile(file):
        raise ConfigError(f"{option} {path}: is not a regular file; give another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: cannot write to the folder {file.parent} ({error.strerror}); give a file in another one"
        ) from error


def refuse_existing(path: Path, option: str = "--output") -> None:
    """Refuse to replace a file.

    Raises:
        ConfigError: If it exists.
    """
    if os.path.isfile(path):  # check_output refuses all else
        raise ConfigError(f"{path} exists; add --overwrite to replace it, or {option} FILE to write another")


def check_page(path: str, *, overwrite: bool) -> None:
    """Check that an HTML page can be written, as :func:`check_output` does.

    Raises:
        ConfigError: If it cannot be written, its name does not end with ``.html``, or it exists and is not overwritten.
    """
    check_output(path, example="report.html")
    file = Path(path).expanduser()
    if file.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output {path}: the page is HTML; give a file that ends with .html")
    if not overwrite:
        refuse_existing(file)


def lock_output(path: Path, option: str = "--output") -> FileLock:
    """Lock a file for this process; remove the temporary files of killed processes.

    Raises:
        ConfigError: If another process writes it.
    """
    lock = FileLock(hidden(path, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{option} {path}: another process is writing this file; wait for it or give another file"
        ) from None
    except OSError as error:
        is_file = os.path.isfile(lock.lock_file) and not os.path.islink(lock.lock_file)
        not_a_file = os.path.lexists(lock.lock_file) and not is_file
        remedy = "remove it" if not_a_file else f"give {option} FILE in another folder"
        raise ConfigError(f"{lock.lock_file}: cannot be locked: {error.strerror}; {remedy}") from error
    name = glob.escape(hidden(path, "").name)
    for left in (f"{name}.*{PARTIAL}", f"{name}.part[0-9]", f"{name}.part[0-9][0-9]", f".{name}.part*{PARTIAL}"):
        sweep(path.parent, left)
    return lock


def release_output(lock: FileLock) -> None:
    """Release a file locked by ``lock_output``."""
    Path(lock.lock_file).unlink(missing_ok=True)  # while locked, so that a waiting process makes a new lock file
    lock.release()
