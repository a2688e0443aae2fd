"""The command fit: what a run starts from, its folder and callbacks, training, and the evaluation of its best epoch."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from lightning import seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    ModelCheckpoint,
    ProgressBar,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from imgcls.callbacks.awaited_values import AwaitedValues
from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.callbacks.csv_history import History
from imgcls.callbacks.data_wait_monitor import DataWaitMonitor
from imgcls.callbacks.ema import EMA
from imgcls.callbacks.run_files import RunFiles
from imgcls.callbacks.stopping import Patience, StopBeforeTraining
from imgcls.callbacks.terminate_on_nan import TerminateOnNaN, refuse_not_finite
from imgcls.callbacks.within_epoch import WithinEpoch
from imgcls.checkpoints.content import data_state
from imgcls.checkpoints.run_folder import RESULTS, lock_run_folder, new_run_folder, write_job
from imgcls.commands.command import Command, Parts, print_once
from imgcls.commands.default_callbacks import (
    early_stopping,
    moving_average,
    run_callbacks,
    shown_callbacks,
    user_callbacks,
)
from imgcls.commands.lr_and_batch_size_finders import (
    recorded,
    refuse_several_devices,
    search,
    take_finders,
    take_values,
    without_finders,
)
from imgcls.commands.monitored_values import Monitored, monitored_values
from imgcls.commands.refusals import check_options
from imgcls.commands.resume import (
    Start,
    check_same_course,
    check_same_model,
    epochs_done,
    find_requeued,
    find_start,
    finished,
    going_on,
    job_of,
)
from imgcls.commands.trainer import as_list, build_trainer, choose_precision, is_first_process
from imgcls.config.overrides import leaves, value_at
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import sweep
from imgcls.runtime.signals import postponed
from imgcls.runtime.tables import write_results

log = logging.getLogger(__name__)


@dataclass
class Trial:
    """A fit that is part of a search: it has a folder of its own, tests nothing and prints no results.

    Args:
        folder: The run folder, which nobody else uses; it may hold a checkpoint to go on from.
        callbacks: Callbacks of the search; they come last, and see what the others have logged.
        base: What the trials share; None where that is not known.
    """

    folder: Path
    callbacks: Sequence[Callback] = field(default_factory=list)
    base: Parts | None = None

    @property
    def modes(self) -> dict[str, str]:
        """``max`` or ``min`` of each metric of the search, where ``optuna.direction`` is configured."""
        if self.base is None or self.base.section["optuna"].direction is None:
            return {}
        config = self.base.section["optuna"]
        modes = ("max" if direction == "maximize" else "min" for direction in as_list(config.direction))
        return dict(zip(as_list(config.metric), modes, strict=False))


class Fit(Command):
    """Train; then evaluate the best checkpoint.

    Args:
        parts: The configuration and what is made of it.
        trial: Set within a search.
    """

    def __init__(self, parts: Parts, trial: Trial | None = None) -> None:
        options = parts.options | {"precision": choose_precision(parts.options)}
        check_options(options, "fit")
        self.trial = trial
        given, runs = parts.section["ckpt_path"], parts.runs_folder
        typed = {"ckpt_path": given, "seed_everything": parts.drawn_seed or parts.saved["seed_everything"]}
        job = job_of(parts.saved | typed) if trial is None else None
        start = find_requeued(runs, job)
        self.weights_only = parts.experiment.only_weights_load and start is None
        super().__init__(parts, start or find_start(given, runs, self.weights_only))
        if trial is not None and trial.base is not None:
            self._share_data(trial.base)
        if self.start is not None and self.weights_only:  # or its config.yaml would not give the same run
            self._save(parts.saved | {"ckpt_path": str(self.start.path.absolute())})
        if self.start is not None and not self.weights_only and parts.drawn_seed:
            self._keep_seed(self.start)
        self.data.pipelines.check()
        self._meet()
        if options["sync_batchnorm"] and (kinds := self.model.fused_norms):
            raise ConfigError(
                f"trainer.sync_batchnorm: true would take the activations out of this network's {', '.join(kinds)}"
            )
        self._doubt()
        callbacks, self.monitored = self._callbacks()
        callbacks, self.finders = take_finders(callbacks)
        if self.start is not None and not self.weights_only:
            course = without_finders(self.parts.saved, recorded(self.finders, self.start.config))
            check_same_course(self.start, course, any(isinstance(item, WeightAveraging) for item in callbacks))
            log.info("%s", going_on(self.start, course))
        refuse_several_devices(self.finders, options)
        self.done = self._is_done(callbacks)
        if self.done and self.start is not None and options["max_epochs"] != -1:
            # Lightning refuses to begin behind the end
            options["max_epochs"] = max(options["max_epochs"] or 0, epochs_done(self.start))
        self.folder = self._folder()
        self.lock: FileLock | None = None
        if self.folder is not None and trial is None and is_first_process():
            self.lock = lock_run_folder(self.folder)
            if job is not None:
                write_job(self.folder, job)
        if self.folder is not None and is_first_process():
            sweep(parts.runs_folder if trial is None else self.folder)
        self.trainer = build_trainer(options, self._with_files(callbacks), self.files, self.folder)

    def _share_data(self, base: Parts) -> None:
        """Take the datasets of the search where they are the same, so that no trial looks at its images again."""
        key = "data.init_args.dataset_classes"
        ours, theirs = (value_at(parts.saved, key) or {} for parts in (self.parts, base))
        self.data.splitter.reuse_datasets(base.data.splitter, [name for name in ours if ours[name] == theirs.get(name)])

    def _keep_seed(self, start: Start) -> None:
        """Go on with the seed that was drawn when the run began."""
        before = start.config.get("seed_everything")
        if isinstance(before, int):
            log.info("seed_everything: %d, drawn when the run began", before)
            seed_everything(before, workers=True, verbose=False)
            self._save(self.parts.saved | {"seed_everything": before})

    def _keep_origin(self, start: Start) -> None:
        """Keep the checkpoint whose weights a run began with, or its config.yaml would not give the same run."""
        if value_at(start.config, "experiment.only_weights_load"):
            experiment = self.parts.saved["experiment"] | {"only_weights_load": True}
            self._save(self.parts.saved | {"ckpt_path": start.config.get("ckpt_path"), "experiment": experiment})
            self.model.from_random = False

    def _meet(self) -> None:
        """Give the model the classes of the data, or both those of the run that goes on."""
        start, record = self.start, None
        if start is not None:
            check_same_model(start, self.model.model_name)
            record = start.record
            if not self.weights_only:
                self._keep_origin(start)
                self._keep_classes(start.path, record["class_names"])
        self.data.setup("fit")
        if start is not None and self.weights_only and (state := data_state(start.content)):
            self.data.splitter.set_weights_record(state)
        # a run that goes on learns its split from the checkpoint, later; what each process would have to hash anew,
        # the first one looks at, and the others learn it from that one
        if (start is None or self.weights_only) and (is_first_process() or not self.data.splitter.uncached_datasets()):
            self.data.splitter.refuse_leaks()
        goes_on = start is not None and not self.weights_only
        weights = None if start is None else start.content["state_dict"]
        self.model.build(self.data.class_names, record, None if goes_on else self.data.multilabel, weights)
        self.model.check_task("the data", self.data.multilabel)
        if start is not None and self.weights_only:
            self.model.load_weights(start.content["state_dict"], start.record["class_names"])
            self.model.from_random = False
        elif start is not None:
            self.model.check_weights(start.content["state_dict"])
            self.model.check_optimizers(start.content["optimizer_states"])
        if start is None:
            refuse_not_finite(f"model.init_args.model_name: {self.model.model_name}", self.model.state_dict())
        else:
            refuse_not_finite(str(start.path), start.content["state_dict"])

    def _keep_classes(self, path: Path, names: list[str]) -> None:
        if self.data.class_names not in ([], names):
            raise ConfigError(
                f"data.init_args.class_names: {self.data.class_names}, but the run of {path} has {names}; leave the "
                "key out to go on, or type --experiment.only_weights_load=true for a new run"
            )
        self.data.class_names = list(names)

    def _doubt(self) -> None:
        """Say where options that go together are hardly meant so."""
        if self.data.balanced_sampling and self.model.loss_config.class_weights == "auto":
            log.warning(
                "data.balanced_sampling: true and loss_config.class_weights: auto each make up for rare classes, which "
                "now count twice; one of them is enough"
            )
        if self.model.optimizer_config.layer_decay not in {None, 1} and self.model.block_count == 1:
            log.warning("optimizer_config.layer_decay: without effect, for the network numbers no blocks")
        if self.model.frozen_share.least == 1 and not self.model.pretrained and self.start is None:
            log.warning("model.freeze_encoder: true, with pretrained: false: the head learns on random features")

    def _callbacks(self) -> tuple[list[Callback], Monitored]:
        options, experiment = self.parts.options, self.parts.experiment
        callbacks = user_callbacks(options)
        if experiment.default_callbacks:
            callbacks = shown_callbacks(callbacks, options)
            before = None if self.start is None or self.weights_only else self.start.content
            callbacks += moving_average(callbacks, None if before is None else "averaging_state" in before)
        modes = {} if self.trial is None else self.trial.modes
        classes, multilabel = self.data.class_names, self.data.multilabel
        monitored = monitored_values(callbacks, options, self.model, classes, multilabel, experiment.monitor, modes)
        if experiment.default_callbacks:
            callbacks += early_stopping(callbacks, monitored, options)
        if self.trial is not None:
            callbacks = [item for item in callbacks if not isinstance(item, ProgressBar)]  # the search has its own line
        if monitored.awaited:
            callbacks = [AwaitedValues(monitored.awaited), *callbacks]
        return callbacks, monitored

    def _with_files(self, callbacks: list[Callback]) -> list[Callback]:
        """Add the callbacks that write into the run folder."""
        wanted = self.parts.experiment.default_callbacks or any(isinstance(item, Checkpoint) for item in callbacks)
        if self.trial is not None:
            for saver in (item for item in callbacks if isinstance(item, ModelCheckpoint)):
                saver.dirpath = None  # a folder of its own, too
        keeps = self.trial is not None or (wanted and self.parts.options["enable_checkpointing"] is not False)
        found = [*callbacks, *run_callbacks(callbacks, self.monitored, self.folder, keeps)]
        found += [DataWaitMonitor(self.data.create_dataset)] if self.trial is None else self.trial.callbacks
        found.append(StopBeforeTraining() if self.done else Patience(callbacks))
        found.append(TerminateOnNaN())
        if self.folder is None:
            return found
        written = None if self.done else _as_yaml(self.parts.saved)  # with which nothing is trained
        minutes = self.parts.experiment.save_every_minutes
        savers = [WithinEpoch(item, minutes) for item in found if isinstance(item, CheckpointSaver)]
        return [RunFiles(self.folder, written), *found, *savers]

    def _is_done(self, callbacks: Sequence[Callback]) -> bool:
        """Whether the run is at its end already, which is said; a new one that would begin there is refused."""
        reason = "" if self.start is None or self.weights_only else finished(self.start, self.parts.options, callbacks)
        in_place = self.trial is not None or (self.start is not None and self.start.run_folder is not None)
        if reason and not in_place:
            raise ConfigError(reason)
        if reason:
            log.info("%s", reason)
        return bool(reason)

    def _folder(self) -> Path | None:
        """Go on in the folder of the run, or make a new one."""
        if self.parts.options["fast_dev_run"]:
            return None
        if self.trial is not None:
            return self.trial.folder
        if self.start is not None and self.start.run_folder is not None:
            return self.start.run_folder
        if not is_first_process():
            return self.parts.runs_folder  # the first process makes the folder, and tells the others in fit
        return new_run_folder(self.parts.runs_folder)

    def run(self) -> None:
        """Train, evaluate and report."""
        try:
            self._find()
            self._train()
            if self.folder is not None and self.trial is None:
                results = self._evaluate_best()
                self._report(results)
                print_once(self.folder)
                for split, values in results.items():
                    self.refuse_no_numbers(split, values, self.folder)
        except (KeyboardInterrupt, SystemExit):
            if self.trial is None and self.saver is not None and self.saver.last.exists():
                more = " --experiment.only_weights_load false" if self.parts.experiment.only_weights_load else ""
                where = f" {self.saver.saved_at}" if self.saver.saved_at else ""
                log.info("stopped; the same command with --ckpt_path last%s goes on%s", more, where)
            raise
        finally:
            if self.lock is not None:
                self.lock.release()

    def _report(self, results: dict[str, dict[str, float]]) -> None:
        if self.folder is not None and self.trainer.is_global_zero:
            write_results(self.folder / RESULTS, self.saver.best_epoch if self.saver else None, results)
        self.show(results)

    def _find(self) -> None:
        """Let the finders choose their values; a run that goes on keeps those with which it began."""
        names = ", ".join(type(finder).__name__ for finder in self.finders)
        if not names:
            return
        if self.folder is None:
            log.info("%s: no search under trainer.fast_dev_run", names)
            return
        if self.start is not None and not self.weights_only:
            log.info("%s: no search, the run goes on with the values of %s", names, self.start.path)
            values = recorded(self.finders, self.start.config)
        else:
            options = self.parts.options | {"precision": self.trainer.precision}
            averaged = any(isinstance(item, EMA) for item in self.trainer.callbacks)  # type: ignore[attr-defined]
            values = search(self.finders, self.model, self.data, options, averaged)
        take_values(values, self.model, self.data)
        self._save(without_finders(self.parts.saved, values))
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunFiles) and not self.done:
                callback.config = _as_yaml(self.parts.saved)

    def _save(self, config: dict[str, Any]) -> None:
        """Let the run's files have a configuration."""
        self.parts = replace(self.parts, saved=config)
        self.files.config = json.dumps(config)

    def _train(self) -> None:
        if chosen := self.model.chosen:
            shown = (f"{name.replace('_', ' ')} {value:g}" for name, value in chosen.items())
            log.info("using defaults: %s", ", ".join(shown))
        if self.parts.options["enable_autolog_hparams"] and self.trainer.is_global_zero and not self.done:
            values = leaves({key: self.parts.saved[key] for key in ("seed_everything", "model", "data")})
            for logger in self.trainer.loggers:
                logger.log_hyperparams(values)
        goes_on: dict[str, Any] = {}
        if self.start is not None and not self.weights_only:
            goes_on = {"ckpt_path": self.start.path, "weights_only": True}
            before = self.start.record.get("precision")
            if before not in (None, self.trainer.precision):
                log.info("trainer.precision: %s (before: %s)", self.trainer.precision, before)
        with postponed(waits=True):
            self.trainer.fit(self.model, datamodule=self.data, **goes_on)
        if not self.done:
            self._say_why_it_ended()

    def _say_why_it_ended(self) -> None:
        for item in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(item, EarlyStopping) and item.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
                log.info("stopped early: %s, not better for %d validations", item.monitor, item.wait_count)
            elif isinstance(item, EarlyStopping) and item.stopping_reason_message:
                log.info("stopped early: %s", item.stopping_reason_message.replace(" Signaling Trainer to stop.", ""))
            remaining = item.time_remaining() if isinstance(item, Timer) else None
            if remaining is not None and remaining <= 0:
                key = "trainer.max_time" if self.parts.options["max_time"] is not None else "the duration of Timer"
                log.info("stopped: %s is over", key)
        epochs, steps = (self.parts.options[key] for key in ("max_epochs", "max_steps"))
        if self.trainer.current_epoch == epochs and self.trainer.global_step < steps:
            log.info(
                "trainer.max_epochs: %d is over after %d of max_steps: %d; -1 in its place goes on to them",
                epochs,
                self.trainer.global_step,
                steps,
            )

    @property
    def saver(self) -> CheckpointSaver | None:
        """The callback that keeps best.ckpt and last.ckpt."""
        return next((item for item in self.trainer.checkpoint_callbacks if isinstance(item, CheckpointSaver)), None)

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The values of the best epoch, ``epoch`` among them; None where the deciding value was never a number."""
        if self.saver is None or self.saver.best_epoch is None:
            return None
        [history] = [item for item in self.trainer.callbacks if isinstance(item, History)]  # type: ignore[attr-defined]
        row = next(row for row in history.rows if row["epoch"] == self.saver.best_epoch)
        return row | self.saver.best_values

    def _evaluate_best(self) -> dict[str, dict[str, float]]:
        path = self._best_checkpoint()
        # Lightning 2.6 evaluates with the last average of a WeightAveraging that was fitted, whatever the checkpoint is
        self.trainer.callbacks = [  # type: ignore[attr-defined]
            item
            for item in self.trainer.callbacks  # type: ignore[attr-defined]
            if not isinstance(item, WeightAveraging)
        ]
        results = {}
        if self.trainer.limit_val_batches:
            loggers, self.trainer.loggers = self.trainer.loggers, []  # whose curves have the epoch already
            try:
                results["validation"] = self.evaluate("validation", path)
            finally:
                self.trainer.loggers = loggers
        if self.data.has_test:
            results["test"] = self.evaluate("test", path)
        return results

    def _best_checkpoint(self) -> Path | None:
        saver = self.saver
        if saver is None:
            log.info("no checkpoint is kept, as configured; the last weights are evaluated")
            return None
        if saver.monitor is None:
            log.info("no validated value tells which epoch is best: the last one is evaluated")
        elif saver.best_epoch is None:
            log.info("no epoch is known to be the best by %s; the last one is evaluated", saver.monitor)
        else:
            log.info("best epoch: %d, %s %.4f", saver.best_epoch + 1, saver.monitor, saver.best_score)
        is_there = saver.best_epoch is not None and saver.best.exists()
        path: Path = self.trainer.strategy.broadcast(saver.best if is_there else saver.last)
        return path


def _as_yaml(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False)
