"""The callbacks of a fit: the user's, the default ones, and those that write the run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar

from imgcls.callbacks.auto_cache import AutoCache
from imgcls.callbacks.awaited_values import AwaitedValues
from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.callbacks.data_wait_monitor import DataWaitMonitor
from imgcls.callbacks.run_files import RunFiles
from imgcls.callbacks.run_summary import RunSummary
from imgcls.callbacks.stopping import Patience, StopBeforeTraining
from imgcls.callbacks.terminate_on_nan import TerminateOnNaN
from imgcls.callbacks.train_predictions import TrainPredictions
from imgcls.callbacks.within_epoch import WithinEpoch
from imgcls.checkpoints.content import Content
from imgcls.checkpoints.run_folder import predictions_file
from imgcls.commands.command import Parts
from imgcls.commands.default_callbacks import (
    early_stopping,
    moving_average,
    run_callbacks,
    shown_callbacks,
    user_callbacks,
)
from imgcls.commands.monitored_values import Monitored, monitored_values
from imgcls.commands.trainer import as_list


@dataclass
class Trial:
    """A fit within a search: it has a folder of its own, is not tested, and prints no results.

    Args:
        folder: The run folder, used by this trial alone; it may hold a checkpoint to resume from.
        callbacks: Callbacks of the search; they come last, after the values of an epoch are logged.
        base: The configuration and data that all trials share.
        evaluates: Whether the validation images are evaluated with the best epoch, with one row per image.
    """

    folder: Path
    callbacks: Sequence[Callback]
    base: Parts
    evaluates: bool

    @property
    def modes(self) -> dict[str, str]:
        """``max`` or ``min`` of each metric of the search, where ``optuna.direction`` is configured."""
        config = self.base.section["optuna"]
        if config.direction is None:
            return {}
        modes = ("max" if direction == "maximize" else "min" for direction in as_list(config.direction))
        return dict(zip(as_list(config.metric), modes, strict=False))


def monitoring_callbacks(
    parts: Parts, resumed: Content | None, trial: Trial | None
) -> tuple[list[Callback], Monitored]:
    """Return the user's callbacks and the default ones, and the values that they monitor.

    The classes of the data are known. ``resumed`` is the checkpoint of the run that is resumed; None for a new run.
    """
    options, experiment, data = parts.options, parts.experiment, parts.data
    callbacks = user_callbacks(options)
    if experiment.default_callbacks:
        callbacks = shown_callbacks(callbacks, options)
        callbacks += moving_average(callbacks, None if resumed is None else "averaging_state" in resumed)
    modes = {} if trial is None else trial.modes
    classes, multilabel = data.class_names, data.multilabel
    monitored = monitored_values(callbacks, options, parts.model, classes, multilabel, experiment.monitor, modes)
    if experiment.default_callbacks:
        callbacks += early_stopping(callbacks, monitored, experiment.patience, options)
    if trial is not None:  # the search reports its own progress
        callbacks = [item for item in callbacks if not isinstance(item, ProgressBar)]
    if monitored.awaited:
        callbacks = [AwaitedValues(monitored.awaited), *callbacks]
    return callbacks, monitored


def with_run_files(
    callbacks: list[Callback],
    monitored: Monitored,
    parts: Parts,
    folder: Path | None,
    trial: Trial | None,
    config: str | None,
    on_cache_decided: Callable[[bool], None],
) -> list[Callback]:
    """Add the callbacks that write the run folder and that end a run.

    Args:
        callbacks: The callbacks of ``monitoring_callbacks``, without finders.
        monitored: The values that they monitor.
        parts: The parts of the fit.
        folder: The run folder; None if nothing is kept.
        trial: Set within a search.
        config: The content of config.yaml; None if nothing is left to train, so that the file stays as it is.
        on_cache_decided: Called with what ``create_dataset: auto`` decides.
    """
    wanted = parts.experiment.default_callbacks or any(isinstance(item, Checkpoint) for item in callbacks)
    if trial is not None:
        for saver in (item for item in callbacks if isinstance(item, ModelCheckpoint)):
            saver.dirpath = None  # a folder for each trial
    keeps = trial is not None or (wanted and parts.options["enable_checkpointing"] is not False)
    found = [*callbacks, *run_callbacks(callbacks, monitored, folder, keeps)]
    decides = parts.data.create_dataset == "auto" and not parts.options["deterministic"]
    monitor = AutoCache(on_cache_decided) if decides else DataWaitMonitor(parts.data.create_dataset is True)
    found += [monitor, RunSummary()] if trial is None else trial.callbacks
    found.append(StopBeforeTraining() if config is None else Patience(callbacks))
    found.append(TerminateOnNaN())
    if folder is None:
        return found
    minutes = parts.experiment.save_every_minutes
    savers = [WithinEpoch(item, minutes) for item in found if isinstance(item, CheckpointSaver)]
    averages = (
        [TrainPredictions(folder / predictions_file("train"))] if trial is None and parts.experiment.report else []
    )
    return [RunFiles(folder, config), *found, *averages, *savers]
