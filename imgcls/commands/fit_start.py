"""What a fit starts with: the settings that a continued run began with, its run folder, and the lock of that folder."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning import seed_everything

from imgcls.checkpoints.content import data_state
from imgcls.checkpoints.run_folder import lock_run_folder, new_run_folder, write_job
from imgcls.commands.command import Parts
from imgcls.commands.fit_callbacks import Trial
from imgcls.commands.resume import Start
from imgcls.commands.trainer import is_first_process
from imgcls.config.overrides import value_at, with_values
from imgcls.runtime.atomic_files import sweep

log = logging.getLogger(__name__)

CREATE_DATASET = "data.init_args.create_dataset"


def slurm_job(parts: Parts) -> str | None:
    """Return the number of the SLURM job of a fit, with a digest of its configuration; None outside of SLURM.

    A requeued job finds its own runs by it, since one job may run several fits.
    """
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return None
    seed = parts.drawn_seed or parts.saved["seed_everything"]
    config = parts.saved | {"ckpt_path": parts.ckpt_path, "seed_everything": seed}
    return f"{number} {hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}"


def original_settings(parts: Parts, start: Start | None, weights_only: bool) -> dict[str, Any]:
    """Return the configuration to save, with checkpoint and seed that the run began with, so that it can be repeated.

    A seed that the resumed run drew is set again. With ``weights_only``, the checkpoint starts a new run.
    """
    saved = parts.saved
    if start is None:
        return saved
    if weights_only:
        return saved | {"ckpt_path": str(start.path.absolute())}
    before = start.config
    seed = before.get("seed_everything")
    if parts.drawn_seed and isinstance(seed, int):
        log.info("seed_everything: %d, drawn at the start of the run", seed)
        seed_everything(seed, workers=True, verbose=False)
        saved = saved | {"seed_everything": seed}
    decided = data_state(start.content).get("create_dataset")
    if decided is not None and value_at(saved, CREATE_DATASET) == "auto":
        saved = with_values(saved, {CREATE_DATASET: decided}, "checkpoint")
    if value_at(before, "experiment.only_weights_load"):
        experiment = saved["experiment"] | {"only_weights_load": True}
        saved = saved | {"ckpt_path": before.get("ckpt_path"), "experiment": experiment}
    return saved


def choose_run_folder(parts: Parts, trial: Trial | None, start: Start | None) -> Path | None:
    """Return the run folder: that of the resumed run or of the trial, or a new one; None if nothing is kept."""
    if parts.options["fast_dev_run"]:
        return None
    if trial is not None:
        return trial.folder
    if start is not None and start.run_folder is not None:
        return start.run_folder
    if not is_first_process():
        return parts.runs_folder  # the first process makes the folder, and broadcasts it in fit
    return new_run_folder(parts.runs_folder)


def claim_run_folder(folder: Path | None, parts: Parts, trial: Trial | None, job: str | None) -> FileLock | None:
    """Lock a run folder, sign it with the SLURM job, and remove what a killed process left.

    Returns:
        The lock, to be released at the end; None within a search, which locks its folders itself.
    """
    if folder is None or not is_first_process():
        return None
    lock = lock_run_folder(folder) if trial is None else None
    if job is not None:
        write_job(folder, job)
    sweep(parts.runs_folder if trial is None else folder)
    return lock
