"""Compare a run that is resumed with its checkpoint: what must be equal, what has changed, what is left to train."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer

from imgcls.checkpoints.run_folder import folder_name
from imgcls.commands.resume import Start
from imgcls.config.overrides import leaves, value_at
from imgcls.config.sections import DIVIDING
from imgcls.errors import ConfigError
from imgcls.models.huggingface.hub import load_config
from imgcls.runtime.lightning_loops import epochs_completed, is_within_epoch

_JOINED = "data.init_args.train_on_validation"
_IMAGE_SIZE = "data.init_args.image_size"
_FIXED = (  # keys that a checkpoint restores, whatever the configuration says
    "seed_everything",
    "model.init_args.optimizer_config",
    "model.init_args.scheduler_config",
    *(f"data.init_args.{key}" for key in DIVIDING),
    _JOINED,
    _IMAGE_SIZE,
)
_NEW_RUN = "to start a new run from these weights, add --experiment.only_weights_load=true"


def check_same_model(start: Start, model_name: str) -> None:
    """Refuse another architecture than the checkpoint's, which would be ignored silently.

    Raises:
        ConfigError: Names both.
    """
    before = start.record["model_name"]
    remedy = "use that one, or leave ckpt_path out"
    if folder_name(model_name) != folder_name(before):
        raise ConfigError(
            f"model.init_args.model_name: {model_name!r} differs from {before!r} in {start.path}; {remedy}"
        )
    if model_name != before and os.path.isdir(model_name):  # the folder has moved, or is another of the same name
        ours, theirs = load_config(model_name).model_type, start.record["network"]["model_type"]
        if ours != theirs:
            raise ConfigError(
                f"model.init_args.model_name: {model_name!r} is of type {ours}, but {before!r} in {start.path} is of "
                f"type {theirs}; {remedy}"
            )


def check_resumable(start: Start, config: Mapping[str, Any], averages: bool) -> None:
    """Refuse values that the checkpoint would override silently: seed, optimizer, schedule and split.

    ``averages`` is whether the run averages its weights.

    Raises:
        ConfigError: Names the key, its value, and the checkpoint's.
    """
    if not averages and "averaging_state" in start.content:
        raise ConfigError(
            f"{start.path} comes from a run with averaged weights; to resume it, add imgcls.EMA to trainer.callbacks"
        )
    before = start.config
    if _has_validation_data(config) and before and not _has_validation_data(before):
        raise ConfigError(
            f"data.init_args.dataset_classes.validation is set, but the run of {start.path} holds its validation "
            f"images out of train. To resume, set the key to null; {_NEW_RUN}"
        )
    ours, theirs = _fixed_values(config), _fixed_values(before)
    if all(value_at(one, _JOINED) for one in (config, before)):  # no split is made
        ours = {key: value for key, value in ours.items() if key.rpartition(".")[2] not in DIVIDING}
    for key in ours.keys() & theirs.keys():
        if ours[key] != theirs[key]:
            former = _shown(theirs[key])
            raise ConfigError(
                f"{key}: {_shown(ours[key])} differs from {former} in {start.path}. To resume, use "
                f"{shlex.quote(f'--{key}={former}')}; {_NEW_RUN}"
            )


def _fixed_values(config: Mapping[str, Any]) -> dict[str, Any]:
    values = leaves(json.loads(json.dumps(config)))
    fixed = {key: value for key, value in values.items() if any(f"{key}.".startswith(f"{p}.") for p in _FIXED)}
    return ({_IMAGE_SIZE: None} if config else {}) | fixed  # runs of earlier versions do not have the key


def _has_validation_data(config: Mapping[str, Any]) -> bool:
    return value_at(config, "data.init_args.dataset_classes.validation") is not None


def resume_message(start: Start, config: Mapping[str, Any]) -> str:
    """Return one line that says from where a run resumes, and which keys of model and data have changed."""
    before = start.config
    ours, theirs = (leaves({key: one.get(key) for key in ("model", "data")}) for one in (config, before))
    ours = json.loads(json.dumps(ours))
    new = [key for key in {**ours, **theirs} if before and ours.get(key) != theirs.get(key)]
    changes = ", ".join(f"{key}: {_shown(ours.get(key))} (was {_shown(theirs.get(key))})" for key in new)
    epoch = epochs_completed(start.content)
    where = f"within epoch {epoch + 1}" if is_within_epoch(start.content) else f"after epoch {epoch}"
    return f"Resuming from {start.path} {where}" + (f". Changed since: {changes}" if changes else "")


def _shown(value: Any) -> Any:
    return "null" if value is None else value


def why_complete(start: Start, options: dict[str, Any], callbacks: Sequence[Callback]) -> str:
    """Return why nothing is left to train and what to change; empty if something is left."""
    epochs, steps = epochs_completed(start.content), start.content["global_step"]
    for done, key in ((epochs, "max_epochs"), (steps, "max_steps")):
        if options[key] is not None and 0 <= options[key] <= done:
            count = f"{done} of {options[key]} {key.removeprefix('max_')}"
            return f"Training of {start.path} is already complete ({count}); to continue: --trainer.{key} N"
    states = start.content.get("callbacks") or {}
    if options["max_time"] is not None and _is_over(Timer(options["max_time"]), states):
        return (
            f"Training of {start.path} is already complete (trainer.max_time: {options['max_time']} is over); to "
            "continue, increase it"
        )
    if any(_is_over(item, states) for item in callbacks if isinstance(item, Timer)):
        return f"Training of {start.path} is already complete (the duration of Timer is over); to continue, increase it"
    if epochs < (options["min_epochs"] or 0) or steps < (options["min_steps"] or 0):
        return ""  # until then Lightning stops by no rule
    for stopping in (item for item in callbacks if isinstance(item, EarlyStopping)):
        reason = _why_stopped(stopping, states)
        if reason:
            return f"{start.path} was stopped early after {epochs} epochs: {reason}. To continue, change it; {_NEW_RUN}"
    return ""


def _is_over(timer: Timer, states: Mapping[str, Any]) -> bool:
    if timer.state_key not in states or timer.time_remaining() is None:
        return False
    again = copy(timer)  # Lightning restores the state of the run's own callback
    again.load_state_dict(states[timer.state_key])
    return (again.time_remaining() or 0) <= 0


def _why_stopped(stopping: EarlyStopping, states: Mapping[str, Any]) -> str:
    """Return which rule of early stopping, as configured now, ends the run; empty if none does."""
    name, threshold = stopping.monitor, stopping.stopping_threshold
    waited = (states.get(stopping.state_key) or {}).get("wait_count", 0)
    if waited >= max(stopping.patience, 1):
        return f"{name} did not improve for {waited} validations (patience: {stopping.patience})"
    last: dict[str, float] = next(reversed((states.get("History") or {}).get("rows") or []), {})
    if threshold is not None and name in last and stopping.monitor_op(*map(torch.tensor, (last[name], threshold))):
        return f"{name} {last[name]:.4f} reached EarlyStopping.stopping_threshold: {threshold}"
    return ""
