"""Which trials count, which are dead, and how a killed or interrupted trial is queued again."""

import socket
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from imgcls.checkpoints.run_folder import LOCK

# user attributes of a trial
REASON = "reason"  # why it failed; a failed trial without a reason was killed
BEST_EPOCH = "best_epoch"  # number of epochs up to the best one
LOSS = "validation_loss"  # of the best epoch, to break ties
FOLDER = "folder"
HOST = "host"
_KILLS = "kills"  # how often it was killed before

INTERRUPTED = "interrupted"  # a reason that is not a failure
_MAX_KILLS = 3  # a trial that exhausts the memory is not repeated forever


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a killed or interrupted trial again, with its parameters and intermediate values.

    Optuna's RetryHeartbeatStaleTrialCallback counts interruptions as retries, and keeps the reason.
    """
    kills = trial.user_attrs.get(_KILLS, 0) + (REASON not in trial.user_attrs)
    if kills >= _MAX_KILLS:
        return
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={key: value for key, value in trial.user_attrs.items() if key != REASON} | {_KILLS: kills},
            system_attrs=trial.system_attrs,
            intermediate_values=trial.intermediate_values,
        )
    )


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of ``n_trials``: it runs or ended by itself, and is not repeated."""
    if trial.state != TrialState.FAIL:
        return trial.state != TrialState.WAITING
    if REASON in trial.user_attrs:
        return bool(trial.user_attrs[REASON] != INTERRUPTED)
    return bool(trial.user_attrs.get(_KILLS, 0) + 1 >= _MAX_KILLS)


def is_dead(trial: FrozenTrial) -> bool:
    """Whether no process runs a running trial any more; trials of other machines only end by their heartbeat."""
    if FOLDER not in trial.user_attrs:
        return True  # killed while it was claimed, which the caller's lock excludes for live workers
    folder = Path(trial.user_attrs[FOLDER])
    if trial.user_attrs[HOST] != socket.gethostname() or not folder.is_dir():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return True
    except Timeout:
        return False
