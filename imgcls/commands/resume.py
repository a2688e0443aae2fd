"""Where a fit starts from: nothing, or a checkpoint whose run goes on or whose weights alone are taken."""

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer

from imgcls.checkpoints.content import CONFIG_KEY, Content
from imgcls.checkpoints.io import DamagedError, read_checkpoint
from imgcls.checkpoints.run_folder import folder_name, newest_checkpoints, run_folder_of
from imgcls.config.overrides import leaves, value_at
from imgcls.config.sections import DIVIDING
from imgcls.errors import ConfigError, listed
from imgcls.models.huggingface.hub import load_config
from imgcls.runtime.lightning_loops import epochs_completed, is_within_epoch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A checkpoint that a command starts from.

    Args:
        path: The file.
        content: What it holds.
        run_folder: The folder of the run that goes on in place; None where a new one begins.
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
        """The configuration of the checkpoint's run; empty for one of the Python API."""
        config: dict[str, Any] = json.loads(self.content.get(CONFIG_KEY) or "{}")
        return config


def open_start(path: str | Path) -> Start:
    """Read the checkpoint that an evaluation needs.

    Raises:
        ConfigError: If it is none.
    """
    if "://" in str(path):
        raise ConfigError(f"--ckpt_path {path}: only files are read; download it first")
    file = Path(path).expanduser()
    return Start(file, read_checkpoint(file))


def find_start(given: str | None, parent: Path, weights_only: bool) -> Start | None:
    """Find the checkpoint that a fit starts from.

    Args:
        given: The key ``ckpt_path``; ``last`` is the newest whole checkpoint below ``parent``.
        parent: The folder of the runs of that name.
        weights_only: Whether the weights alone are taken, so that a new run begins.

    Raises:
        ConfigError: If there is none.
    """
    if given is None:
        if weights_only:
            raise ConfigError("experiment.only_weights_load: true, without a checkpoint; type --ckpt_path FILE.ckpt")
        return None
    start = open_start(given) if given != "last" else _newest(parent, weights_only)
    if not weights_only and not _can_go_on(start.content):
        raise ConfigError(f"{start.path}: holds weights alone; add --experiment.only_weights_load true")
    return start


def job_of(config: Mapping[str, Any]) -> str | None:
    """Return what a requeued job has in common with its first start alone: SLURM's number of it, and the configuration.

    Args:
        config: The configuration as plain values, for one job may fit several.

    Returns:
        The number and a digest; None outside of SLURM.
    """
    number = os.environ.get("SLURM_JOB_ID")
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return None if number is None else f"{number} {digest}"


def find_requeued(parent: Path, job: str | None) -> Start | None:
    """Find the checkpoint of a job that SLURM has started before, whose run is to go on with the same command.

    Args:
        parent: The folder of the runs of that name.
        job: What its run folder is signed with.
    """
    was_started = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    return _newest_of(parent, job) if was_started and job is not None else None


def _newest_of(parent: Path, job: str | None = None, weights_only: bool = False) -> Start | None:
    """Return the newest checkpoint that is whole; the damaged ones that are passed over are logged."""
    for path in newest_checkpoints(parent, job):
        try:
            content = read_checkpoint(path)
        except DamagedError as error:
            log.warning("--ckpt_path last: passed over: %s", error)
            continue
        if weights_only or _can_go_on(content):
            return Start(path, content, None if weights_only else run_folder_of(path))
    return None


def _newest(parent: Path, weights_only: bool) -> Start:
    start = _newest_of(parent, weights_only=weights_only)
    if start is not None:
        return start
    if found := [str(path) for path in newest_checkpoints(parent)]:
        kinds = "damaged" if weights_only else "damaged, or hold weights alone"
        raise ConfigError(
            f"--ckpt_path last: all checkpoints below {parent} are {kinds}: {listed(found)}; leave it out to start anew"
        )
    raise ConfigError(f"--ckpt_path last: there is no checkpoint below {parent}; leave it out to start anew")


def _can_go_on(content: Content) -> bool:
    """Whether a checkpoint holds more than weights (``save_weights_only`` of ModelCheckpoint)."""
    return "optimizer_states" in content


def check_same_model(start: Start, model_name: str) -> None:
    """Refuse another architecture than the checkpoint's, which would be used without a word.

    Raises:
        ConfigError: Names both.
    """
    before = start.record["model_name"]
    if folder_name(model_name) != folder_name(before):
        raise ConfigError(
            f"model.init_args.model_name: {model_name!r}, but {start.path} holds {before!r}; name that one, or leave "
            "ckpt_path out"
        )
    if model_name != before and os.path.isdir(model_name):  # moved, or another of that name
        ours, theirs = load_config(model_name).model_type, start.record["network"]["model_type"]
        if ours != theirs:
            raise ConfigError(
                f"model.init_args.model_name: {model_name!r} is of type {ours}, but {start.path} holds {before!r} of "
                f"type {theirs}; name that one, or leave ckpt_path out"
            )


def check_same_course(start: Start, config: Mapping[str, Any], averages: bool) -> None:
    """Refuse what the checkpoint would override without a word: another seed, optimizer, schedule or split.

    Args:
        start: The checkpoint to go on from.
        config: The configuration as plain values.
        averages: Whether weights are averaged.

    Raises:
        ConfigError: Names the key, its value, and that of the checkpoint.
    """
    if not averages and "averaging_state" in start.content:
        raise ConfigError(f"{start.path}: its run averages the weights; add imgcls.EMA to trainer.callbacks, as before")
    before = start.config
    if _validates_apart(config) and before and not _validates_apart(before):
        raise ConfigError(
            f"data.init_args.dataset_classes.validation: the run of {start.path} holds its images out of train; leave "
            "the key null to go on, or type --experiment.only_weights_load=true for a new run"
        )
    ours, theirs = _course(config), _course(before)
    if all(value_at(one, _JOINED) for one in (config, before)):  # nothing is divided
        ours = {key: value for key, value in ours.items() if key.rpartition(".")[2] not in DIVIDING}
    for key in ours.keys() & theirs.keys():
        if ours[key] != theirs[key]:
            former = _shown(theirs[key])
            raise ConfigError(
                f"{key}: {_shown(ours[key])}, but the run of {start.path} began with {former} and keeps to it; type "
                f"{shlex.quote(f'--{key}={former}')} to go on, or --experiment.only_weights_load=true for a new run"
            )


_JOINED = "data.init_args.train_on_validation"
_OF_THE_COURSE = (
    "seed_everything",
    "model.init_args.optimizer_config",
    "model.init_args.scheduler_config",
    *(f"data.init_args.{key}" for key in DIVIDING),
    _JOINED,
)


def _course(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides how a run goes on: dotted key -> value."""
    values = leaves(json.loads(json.dumps(config)))
    return {key: value for key, value in values.items() if any(f"{key}.".startswith(f"{p}.") for p in _OF_THE_COURSE)}


def _validates_apart(config: Mapping[str, Any]) -> bool:
    return value_at(config, "data.init_args.dataset_classes.validation") is not None


def going_on(start: Start, config: Mapping[str, Any]) -> str:
    """Return in one line where a run goes on, and which keys of model and data are others than before.

    Args:
        start: The checkpoint.
        config: The configuration as plain values.
    """
    before = start.config
    ours, theirs = (leaves({key: one.get(key) for key in ("model", "data")}) for one in (config, before))
    ours = json.loads(json.dumps(ours))
    new = [key for key in {**ours, **theirs} if before and ours.get(key) != theirs.get(key)]
    others = [f"{key}: {_shown(ours.get(key))} (before: {_shown(theirs.get(key))})" for key in new]
    epoch = epochs_done(start)
    where = f"within epoch {epoch + 1}" if is_within_epoch(start.content) else f"after epoch {epoch}"
    return "; ".join([f"goes on {where} of {start.path}", *others])


def _shown(value: Any) -> Any:
    return "null" if value is None else value


def epochs_done(start: Start) -> int:
    """Return the number of epochs that a checkpoint is trained for."""
    return epochs_completed(start.content)


def finished(start: Start, options: dict[str, Any], callbacks: Sequence[Callback]) -> str:
    """Return why nothing is left to train, empty if something is.

    Args:
        start: The checkpoint to go on from.
        options: The Trainer's arguments.
        callbacks: The callbacks of the run that goes on.
    """
    epochs, steps = epochs_done(start), start.content["global_step"]
    for done, key in ((epochs, "max_epochs"), (steps, "max_steps")):
        if options[key] is not None and 0 <= options[key] <= done:
            return f"{start.path} is trained to {done} of trainer.{key}: {options[key]}; raise it to go on"
    states = start.content.get("callbacks") or {}
    if options["max_time"] is not None and _is_over(Timer(options["max_time"]), states):
        return f"{start.path} is trained for the whole of trainer.max_time: {options['max_time']}; raise it to go on"
    if any(_is_over(item, states) for item in callbacks if isinstance(item, Timer)):
        return f"{start.path} is trained for the whole of the duration of Timer; raise it to go on"
    if epochs < (options["min_epochs"] or 0) or steps < (options["min_steps"] or 0):
        return ""  # until then Lightning stops by no rule
    for stopping in (item for item in callbacks if isinstance(item, EarlyStopping)):
        reason = _stopped(stopping, states)
        if reason:
            return (
                f"{start.path} was stopped early after {epochs} epochs: {reason}; change it to go on, or type "
                "--experiment.only_weights_load true for a new run"
            )
    return ""


def _is_over(timer: Timer, states: Mapping[str, Any]) -> bool:
    if timer.state_key not in states or timer.time_remaining() is None:
        return False
    again = copy(timer)  # the callback of the run that goes on takes its state by itself
    again.load_state_dict(states[timer.state_key])
    return (again.time_remaining() or 0) <= 0


def _stopped(stopping: EarlyStopping, states: Mapping[str, Any]) -> str:
    """Return by which rule of early stopping, as it is configured now, a run is at its end; empty if by none."""
    name, threshold = stopping.monitor, stopping.stopping_threshold
    waited = (states.get(stopping.state_key) or {}).get("wait_count", 0)
    if waited >= max(stopping.patience, 1):
        return (
            f"{name} was not better for {waited} validations, and the patience of EarlyStopping is {stopping.patience}"
        )
    last: dict[str, float] = next(reversed((states.get("History") or {}).get("rows") or []), {})
    if threshold is not None and name in last and stopping.monitor_op(*map(torch.tensor, (last[name], threshold))):
        return f"{name} {last[name]:.4f} reached the stopping_threshold of EarlyStopping, {threshold}"
    return ""
