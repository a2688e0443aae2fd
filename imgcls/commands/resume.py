"""Find the checkpoint that a command starts from: to resume its run, or for its weights alone."""

import json
import logging
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcls.checkpoints.content import CONFIG_KEY, Content
from imgcls.checkpoints.io import DamagedError, read_checkpoint
from imgcls.checkpoints.run_folder import CHECKPOINTS, newest_best, newest_checkpoints, run_folder_of
from imgcls.errors import ConfigError, listed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A checkpoint that a command starts from.

    Args:
        path: The file.
        content: Its content, read and checked.
        run_folder: The folder of a run that is resumed in place; None if the command makes a new one.
    """

    path: Path
    content: Content
    run_folder: Path | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What the checkpoint records of its model."""
        record: dict[str, Any] = self.content["imgcls"]
        return record

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the checkpoint's run; empty for a run of the Python API."""
        config: dict[str, Any] = json.loads(self.content.get(CONFIG_KEY) or "{}")
        return config


def open_start(path: str | Path) -> Start:
    """Read a checkpoint.

    Raises:
        ConfigError: If it cannot be read, or is not a checkpoint of imgcls.
    """
    if "://" in str(path):
        raise ConfigError(f"--ckpt_path must be a local file, got {path}; download it first")
    file = Path(path).expanduser()
    return Start(file, read_checkpoint(file))


def trained_checkpoint(command: str, given: str | None, output_dir: str) -> str | Path:
    """Return the checkpoint of a command that needs a trained model.

    Args:
        command: The command, for the message.
        given: Its option ``--ckpt_path``; ``last`` is the best of the newest run.
        output_dir: The folder of all runs.

    Raises:
        ConfigError: If none is given, or there is no run.
    """
    if given not in {None, "last"}:
        return str(given)
    newest = newest_best(Path(output_dir))
    if given is None or newest is None:
        hint = shlex.quote(str(newest)) if newest else "RUN_FOLDER/checkpoints/best.ckpt"
        raise ConfigError(f"{command} needs the checkpoint of a trained model: --ckpt_path {hint}")
    log.info("Reading --ckpt_path last as %s, the best of the newest run", newest)
    return newest


def find_start(given: str | None, parent: Path, weights_only: bool) -> Start | None:
    """Find the checkpoint that a fit starts from.

    Args:
        given: The key ``ckpt_path``; ``last`` is the newest intact checkpoint in the runs of ``parent``.
        parent: The folder of the runs of that name.
        weights_only: Whether to load the weights alone, for a new run.

    Returns:
        None for a fit without a checkpoint.

    Raises:
        ConfigError: If a checkpoint is needed and there is none.
    """
    if given is None:
        if weights_only:
            raise ConfigError("experiment.only_weights_load: true needs a checkpoint; add --ckpt_path FILE.ckpt")
        return None
    start = open_start(given) if given != "last" else _newest(parent, weights_only)
    if not weights_only and not _has_training_state(start.content):
        raise ConfigError(
            f"{start.path} contains weights only, so its run cannot be resumed; to start a new run from them, add "
            "--experiment.only_weights_load true"
        )
    return start


def find_requeued(parent: Path, job: str | None) -> Start | None:
    """Find the checkpoint to resume from in a job that SLURM has requeued; None in any other."""
    restarted = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    return _newest_intact(parent, job) if restarted and job is not None else None


def _newest_intact(parent: Path, job: str | None = None, weights_only: bool = False) -> Start | None:
    """Return the newest intact checkpoint, and log the damaged ones that are skipped."""
    for path in newest_checkpoints(parent, job):
        try:
            content = read_checkpoint(path)
        except DamagedError as error:
            log.warning("--ckpt_path last: skipping %s", error)
            continue
        if weights_only or _has_training_state(content):
            return Start(path, content, None if weights_only else run_folder_of(path))
    return None


def _newest(parent: Path, weights_only: bool) -> Start:
    start = _newest_intact(parent, weights_only=weights_only)
    if start is not None:
        return start
    fresh = "to train from scratch, leave --ckpt_path out"
    if found := [str(path) for path in newest_checkpoints(parent)]:
        state = "are damaged" if weights_only else "are damaged or contain weights only"
        raise ConfigError(f"--ckpt_path last: all checkpoints in {parent} {state}: {listed(found)}; {fresh}")
    raise ConfigError(f"--ckpt_path last: no checkpoint in {parent}{_other_runs(parent)}; {fresh}")


def _other_runs(parent: Path) -> str:
    """Name the newest run of any name, and how to resume it; empty if there is none."""
    best = newest_best(parent.parent)
    if best is None:
        return ""
    names = sorted({path.parents[1].name for path in parent.parent.glob(f"*/version_*/{CHECKPOINTS}/")})
    config = shlex.quote(str(best.parents[1] / "config.yaml"))
    return (
        f"; {parent.parent} has runs named {listed(names)}. To resume the newest: imgcls fit --config {config} "
        f"--experiment.custom_folder_name {shlex.quote(best.parents[2].name)} --ckpt_path last"
    )


def _has_training_state(content: Content) -> bool:
    """Whether a checkpoint holds more than weights (``save_weights_only`` of ModelCheckpoint)."""
    return "optimizer_states" in content
