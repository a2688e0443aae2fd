"""Run folders: ``<output_dir>/<name>/version_N``, and the checkpoints that lie there."""

import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import write_text

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
LOCK = ".lock"
REQUEUED = "hpc_ckpt_*.ckpt"  # what Lightning saves in the run folder where SLURM ends a job to start it again
RESULTS = "results.json"

_VERSION = re.compile(r"version_(\d+)")
_JOB = ".job"
_PATIENCE = 10.0  # seconds; the loader workers of a killed run hold its lock until they notice


def runs_folder(output_dir: str, name: str | None, model_name: str, data_name: str) -> Path:
    """Return ``<output_dir>/<name>``; without a name, one is made from model and data.

    Raises:
        ConfigError: If the name is a path.
    """
    if name is not None and (name in {"", ".", ".."} or re.search(r"[/\\\0]", name)):
        raise ConfigError(
            f"experiment.custom_folder_name: {name!r} is no folder name; where runs lie says experiment.output_dir"
        )
    return Path(output_dir, name or f"{folder_name(model_name)}-{folder_name(data_name)}")


def new_run_folder(parent: Path) -> Path:
    """Make the next free ``version_N``; two runs that start at once get one each.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(match[1]) for path in parent.iterdir() if (match := _VERSION.fullmatch(path.name))]
            folder = parent / f"version_{max(taken, default=-1) + 1}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ConfigError(f"experiment.output_dir: cannot write to {parent}: {error.strerror}") from error


def hold(folder: Path) -> FileLock:
    """Claim a run folder for this process; the system gives it back when the process ends, however it ends.

    Raises:
        ConfigError: If another process trains there.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise ConfigError(f"{folder}: another process trains there; wait for it, or start a new run") from None
    return lock


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, None if it lies elsewhere."""
    folder = checkpoint.absolute().parent
    if checkpoint.match(REQUEUED):
        return folder
    return folder.parent if folder.name == CHECKPOINTS else None


def sign(folder: Path, job: str) -> None:
    """Write into a run folder which job trains there."""
    write_text(folder / _JOB, job)


def is_signed(folder: Path, job: str) -> bool:
    """Whether it is this job that trained in a run folder."""
    return (folder / _JOB).is_file() and (folder / _JOB).read_text(encoding="utf-8") == job


def newest_checkpoints(parent: Path, job: str | None = None) -> Iterator[Path]:
    """Return the checkpoints below ``<output_dir>/<name>``: of the newest run first, in it the newest first.

    Args:
        parent: ``<output_dir>/<name>``.
        job: Look only into the run folders that this job has signed.
    """
    runs = [run for run in _runs_in(parent) if job is None or is_signed(run, job)]
    files = [[*run.glob(f"{CHECKPOINTS}/*.ckpt"), *run.glob(REQUEUED)] for run in runs]
    newest = sorted(
        (sorted(map(_age, found), reverse=True) for found in files if found), key=_newest_time, reverse=True
    )
    return (path for found in newest for *_, path in found)


def newest_best(output_dir: Path) -> Path | None:
    """Return the best checkpoint of the newest run below ``output_dir``."""
    found = (run / CHECKPOINTS / BEST for parent in output_dir.glob("*/") for run in _runs_in(parent))
    return max((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime_ns, default=None)


def _runs_in(parent: Path) -> list[Path]:
    """Run folders; a copy that someone made of one, such as ``version_0_backup``, is none."""
    return [path for path in parent.glob("version_*") if _VERSION.fullmatch(path.name)]


def _age(path: Path) -> tuple[bool, int, bool, Path]:
    """What a run's checkpoints are sorted by: best.ckpt is never ahead of others, whatever a copy made of times."""
    return path.name != BEST, path.stat().st_mtime_ns, path.name == LAST, path


def _newest_time(found: list[tuple[bool, int, bool, Path]]) -> int:
    return max(time for _, time, *_ in found)


def folder_name(text: str) -> str:
    """Make a readable folder name of a model name or path."""
    return re.sub(r"[^\w.-]+", "-", Path(text).name).strip("-.") or "run"
