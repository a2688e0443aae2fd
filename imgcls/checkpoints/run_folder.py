"""Run folders ``<output_dir>/<name>/version_N`` and their checkpoints."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import write_text

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
LOCK = ".lock"
REQUEUED = "hpc_ckpt_*.ckpt"  # saved by Lightning in the run folder when SLURM requeues a job
RESULTS = "results.json"
SPLITS = "splits.csv"
PROPERTIES = "image_properties.csv"
EVALUATIONS = "evaluations"
EVALUATION = "evaluation.json"  # beside the files of an evaluation on other data, or with other settings
EVALUATED = ("validation", "test")  # splits
REPORT = "report.html"
THUMBNAILS = "thumbnails.csv"
EXPORTED = "export.json"

_VERSION = re.compile(r"version_(\d+)")
_JOB = ".job"
_PATIENCE = 10.0  # seconds; the loader workers of a killed run keep its lock for a while


def runs_folder(output_dir: str, name: str | None, model_name: str, data_name: str) -> Path:
    """Return ``<output_dir>/<name>``, where the default name is made from model and data.

    Raises:
        ConfigError: If the name is a path.
    """
    if name is not None and (name in {"", ".", ".."} or re.search(r"[/\\\0]", name)):
        raise ConfigError(
            f"experiment.custom_folder_name must be the name of a folder, got {name!r}; set its parent with "
            "experiment.output_dir"
        )
    return Path(output_dir, name or f"{folder_name(model_name)}-{folder_name(data_name)}")


def results_file(split: str) -> str:
    """Return the name of the file with the metrics of an evaluation."""
    return f"{split}_results.json"


def predictions_file(split: str) -> str:
    """Return the name of the file with one row per evaluated image."""
    return f"{split}_predictions.csv"


def new_run_folder(parent: Path) -> Path:
    """Make the next free ``version_N``, also if several runs start at the same time.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    try:
        return _next_folder(parent, "version_", 0)
    except OSError as error:
        raise ConfigError(f"experiment.output_dir: cannot write to {parent}: {error.strerror}") from error


def new_evaluation_folder(run: Path) -> Path:
    """Make the next free ``evaluations/N`` of a run folder.

    Raises:
        ConfigError: If the run folder cannot be written.
    """
    try:
        return _next_folder(run / EVALUATIONS, "", 1)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {run / EVALUATIONS} ({error.strerror}); give another folder: --output FOLDER"
        ) from error


def _next_folder(parent: Path, prefix: str, first: int) -> Path:
    """Make the next free folder ``<prefix>N``."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [path.name.removeprefix(prefix) for path in parent.iterdir() if path.name.startswith(prefix)]
        taken = [int(number) for number in numbers if number.isdecimal()]
        folder = parent / f"{prefix}{max(taken, default=first - 1) + 1}"
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def lock_run_folder(folder: Path) -> FileLock:
    """Lock a run folder for this process; the operating system releases the lock when the process ends.

    Raises:
        ConfigError: If another process trains in it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise ConfigError(f"{folder}: another process trains in this folder; wait for it or start a new run") from None
    return lock


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return the run folder of a checkpoint; None if it is not in one."""
    folder = checkpoint.absolute().parent
    if checkpoint.match(REQUEUED):
        return folder
    return folder.parent if folder.name == CHECKPOINTS else None


def run_of_export(folder: Path) -> Path | None:
    """Return the run folder that a folder of ``imgcls export``, there or elsewhere, was written from; None: unknown."""
    try:
        path = Path(json.loads((folder / EXPORTED).read_text(encoding="utf-8"))["checkpoint"]["path"])
    except (OSError, ValueError, LookupError, TypeError):  # no export, or one by another program
        return None
    runs = [Path(os.path.normpath(folder / ".." / "..")), *(Path("runs") / each for each in path.parents[1:2])]
    return next((run for run in runs if (run / CHECKPOINTS / path.name).is_file()), None)


def write_job(folder: Path, job: str) -> None:
    """Write the id of the job that trains in a run folder."""
    write_text(folder / _JOB, job)


def is_of_job(folder: Path, job: str) -> bool:
    """Whether a run folder belongs to a job."""
    return (folder / _JOB).is_file() and (folder / _JOB).read_text(encoding="utf-8") == job


def newest_checkpoints(parent: Path, job: str | None = None) -> Iterator[Path]:
    """Return the checkpoints below ``<output_dir>/<name>``, newest run first and in each run newest first.

    With a ``job``, only those of its run folders.
    """
    runs = [run for run in _runs_in(parent) if job is None or is_of_job(run, job)]
    files = [[*run.glob(f"{CHECKPOINTS}/*.ckpt"), *run.glob(REQUEUED)] for run in runs]
    newest = sorted(filter(None, files), key=lambda found: max(map(_time, found)), reverse=True)
    return (path for found in newest for path in sorted(found, key=_age, reverse=True))


def newest_best(output_dir: Path) -> Path | None:
    """Return the best checkpoint of the newest run below ``output_dir``."""
    found = (run / CHECKPOINTS / BEST for parent in output_dir.glob("*/") for run in _runs_in(parent))
    return max((path for path in found if path.exists()), key=_time, default=None)


def newest_run(output_dir: Path, name: str | None = None) -> Path | None:
    """Return the run folder, with a config.yaml, of the newest checkpoint of all runs, or of those of a name."""
    parents = [output_dir / name] if name else output_dir.glob("*/")
    files = [file for parent in parents if (file := next(newest_checkpoints(parent), None))]
    newest = max(files, key=_time, default=Path())
    folder = next((each for each in newest.parents if _VERSION.fullmatch(each.name)), None)
    return folder if folder and (folder / "config.yaml").is_file() else None


def _runs_in(parent: Path) -> list[Path]:
    """Return the run folders, without copies such as ``version_0_backup``."""
    return [path for path in parent.glob("version_*") if _VERSION.fullmatch(path.name)]


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def _age(path: Path) -> tuple[bool, int, bool, Path]:
    """Return the sort key of a checkpoint; best.ckpt comes after all others, even if a copy changed the times."""
    return path.name != BEST, _time(path), path.name == LAST, path


def folder_name(text: str) -> str:
    """Return a readable folder name for a model name or path."""
    return re.sub(r"[^\w.-]+", "-", Path(text).name).strip("-.") or "run"
