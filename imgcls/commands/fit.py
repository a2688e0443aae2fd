"""The command fit: train, then evaluate the best epoch."""

import json
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, WeightAveraging

from imgcls.callbacks.ema import EMA
from imgcls.callbacks.run_files import RunFiles
from imgcls.checkpoints.calibration import without_calibration
from imgcls.commands.best_epoch import Evaluated, best_row, checkpoint_saver, evaluate_best_epoch
from imgcls.commands.calibration import about_temperature
from imgcls.commands.command import Command, Parts, print_once
from imgcls.commands.evaluation_files import about_evaluation
from imgcls.commands.fit_callbacks import Trial, monitoring_callbacks, with_run_files
from imgcls.commands.fit_report import about_run, log_end, log_stop_reason, write_fit_results
from imgcls.commands.fit_start import CREATE_DATASET, choose_run_folder, claim_run_folder, original_settings, slurm_job
from imgcls.commands.lr_and_batch_size_finders import (
    recorded,
    refuse_several_devices,
    search,
    take_finders,
    take_values,
    without_finders,
)
from imgcls.commands.model_setup import (
    set_up_from_weights,
    set_up_new,
    set_up_resumed,
    share_datasets,
    warn_of_options,
)
from imgcls.commands.refused_options import check_options
from imgcls.commands.report_files import report_run
from imgcls.commands.resume import find_requeued, find_start
from imgcls.commands.resume_checks import check_resumable, resume_message, why_complete
from imgcls.commands.trackers import TrackerGuard, close, complete, trackers
from imgcls.commands.trainer import build_trainer, choose_precision, log_device
from imgcls.config.overrides import leaves, with_values
from imgcls.config.yaml_values import dump_yaml
from imgcls.errors import ConfigError
from imgcls.runtime.lightning_loops import epochs_completed
from imgcls.runtime.signals import postponed
from imgcls.runtime.tables import short_path, values_text

log = logging.getLogger(__name__)


class Fit(Command):
    """Train; then evaluate the best checkpoint. Within a search, it is a trial."""

    def __init__(self, parts: Parts, trial: Trial | None = None) -> None:
        self.begun = time.monotonic()
        self.is_evaluated = False
        options = parts.options | {"precision": choose_precision(parts.options)}
        check_options(options, "fit")
        self.trial = trial
        job = slurm_job(parts) if trial is None else None
        start = find_requeued(parts.runs_folder, job)
        self.weights_only = parts.experiment.only_weights_load and start is None
        start = start or find_start(parts.ckpt_path, parts.runs_folder, self.weights_only)
        if start is not None:  # a fit trains at the temperature 1
            start = replace(start, content=without_calibration(start.content))
        super().__init__(parts, start)
        self.resumed = None if self.weights_only else self.start
        if trial is not None:
            share_datasets(parts, trial.base)
        self._save(original_settings(parts, self.start, self.weights_only))
        self.data.pipelines.check()
        self._set_up()
        if options["sync_batchnorm"] and (kinds := self.model.built().fused_norms()):
            raise ConfigError(
                f"trainer.sync_batchnorm: true would remove the activations of this network's {', '.join(kinds)}; "
                "leave it out"
            )
        warn_of_options(self.model, self.data, self.start is None)
        resumed = None if self.resumed is None else self.resumed.content
        callbacks, monitored = monitoring_callbacks(parts, resumed, trial)
        callbacks, self.finders = take_finders(callbacks)
        refuse_several_devices(self.finders, options)
        self.complete = self._check_resumed(callbacks)
        if self.complete and self.start is not None and options["max_epochs"] != -1:
            # Lightning 2.6 refuses a checkpoint of more epochs than max_epochs
            options["max_epochs"] = max(options["max_epochs"] or 0, epochs_completed(self.start.content))
        self.folder = choose_run_folder(parts, trial, self.start)
        self.lock = claim_run_folder(self.folder, parts, trial, job)
        config = None if self.complete else dump_yaml(self.parts.saved)
        callbacks = with_run_files(callbacks, monitored, parts, self.folder, trial, config, self._keep_cache_decision)
        self.trainer = build_trainer(options, [*callbacks, TrackerGuard()], self.files, self.folder)
        self.trackers = trackers(self.trainer.loggers)

    def _set_up(self) -> None:
        if self.resumed is not None:
            set_up_resumed(self.model, self.data, self.resumed)
        elif self.start is not None:
            set_up_from_weights(self.model, self.data, self.start)
        else:
            set_up_new(self.model, self.data)

    def _check_resumed(self, callbacks: Sequence[Callback]) -> str:
        """Compare a resumed run with its checkpoint; return why nothing is left to train, empty if something is.

        Raises:
            ConfigError: If they do not fit together, or a new run would end before its first step.
        """
        if self.resumed is None:
            return ""
        config = without_finders(self.parts.saved, recorded(self.finders, self.resumed.config))
        check_resumable(self.resumed, config, any(isinstance(item, WeightAveraging) for item in callbacks))
        log.info("%s", resume_message(self.resumed, config))
        reason = why_complete(self.resumed, self.parts.options, callbacks)
        if reason and self.trial is None and self.resumed.run_folder is None:
            raise ConfigError(reason)
        if reason:
            log.info("%s", reason)
        return reason

    def run(self) -> None:
        """Train, evaluate and report."""
        try:
            self._find_values()
            self._train()
            if self.trial is not None and self.trial.evaluates and self.best_row is not None:
                self._evaluate_best()
            if self.trial is None and self.folder is not None:
                self._finish(self.folder)
        except (KeyboardInterrupt, SystemExit):
            self._log_what_is_left()
            raise
        finally:
            if self.trainer.is_global_zero:
                close(self.trackers, failed=sys.exc_info()[0] is not None)
            if self.lock is not None:
                self.lock.release()

    def _find_values(self) -> None:
        """Let the finders choose their values; a resumed run keeps those it began with."""
        names = ", ".join(type(finder).__name__ for finder in self.finders)
        if not names:
            return
        if self.folder is None:
            log.info("%s: skipped, because of trainer.fast_dev_run", names)
            return
        if self.resumed is not None:
            log.info("%s: skipped, the resumed run uses the values of %s", names, self.resumed.path)
            values = recorded(self.finders, self.resumed.config)
        else:
            options = self.parts.options | {"precision": self.trainer.precision}
            averaged = any(isinstance(item, EMA) for item in self.trainer.callbacks)  # type: ignore[attr-defined]
            values = search(self.finders, self.model, self.data, options, averaged)
        take_values(values, self.model, self.data)
        self._save(without_finders(self.parts.saved, values))
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunFiles) and not self.complete:
                callback.config = dump_yaml(self.parts.saved)

    def _keep_cache_decision(self, builds: bool) -> None:
        """Write what ``create_dataset: auto`` has decided into config.yaml and the checkpoints."""
        self._save(with_values(self.parts.saved, {CREATE_DATASET: builds}, "create_dataset: auto"))
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunFiles) and self.trainer.is_global_zero:
                callback.write_config(dump_yaml(self.parts.saved))

    def _save(self, config: dict[str, Any]) -> None:
        """Change the configuration that the run's files and checkpoints record."""
        self.parts = replace(self.parts, saved=config)
        self.files.config = json.dumps(config)

    def _train(self) -> None:
        log_device(self.trainer, self.parts.options["precision"] is None)
        if chosen := self.model.chosen:
            log.info("Defaults: %s", values_text(chosen))
        if self.parts.options["enable_autolog_hparams"] and self.trainer.is_global_zero and not self.complete:
            hparams = leaves({key: self.parts.saved[key] for key in ("seed_everything", "model", "data")})
            hparams |= {f"model.init_args.{key}": value for key, value in self.model.chosen.items()}
            for logger in self.trainer.loggers:
                logger.log_hyperparams(hparams)
        resume: dict[str, Any] = {}
        if self.resumed is not None:
            resume = {"ckpt_path": self.resumed.path, "weights_only": True}
            before = self.resumed.record.get("precision")
            if before not in (None, self.trainer.precision):
                log.info("trainer.precision: %s (was %s)", self.trainer.precision, before)
        with postponed(waits=True):
            self.trainer.fit(self.model, datamodule=self.data, **resume)
        if not self.complete:
            log_stop_reason(self.trainer, self.parts.options)

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The values of the best epoch; None if the monitored value was never a number."""
        return best_row(self.trainer)

    def _evaluate_best(self) -> Evaluated:
        """Evaluate the best epoch, and write the files of its results; a trial's test data is not looked at."""
        trained_in, is_run = str(self.trainer.precision), self.trial is None
        found = evaluate_best_epoch(
            self,
            self.folder,
            tests=self.data.has_test and is_run,
            calibrates=self.parts.experiment.calibrate and is_run,
        )
        if self.folder is not None and self.trainer.is_global_zero:
            more = {} if found.temperature is None else about_temperature(found.temperature, self.model.class_names)
            seconds = time.monotonic() - self.begun
            more["run"] = about_run(self.trainer, trained_in, seconds, self.resumed is not None, self.model.chosen)
            saver = checkpoint_saver(self.trainer)
            epoch = None if saver is None else saver.best_epoch
            about = about_evaluation(self.parts, found.path)
            write_fit_results(self.folder, epoch, found.results, about, self.counts, more)
        return found

    def _finish(self, folder: Path) -> None:
        """Evaluate the best epoch; print the tables, write the report, and say where everything is."""
        results = self._evaluate_best().results
        self.is_evaluated = True
        self.show(results)
        if self.trainer.is_global_zero:
            for split in list(results)[-1:] if self.parts.experiment.report else []:
                maps = self.model, self.trainer.strategy.root_device
                report_run(folder, split, self.data, self.data.splitter.fit_splits, maps, self.trainer.loggers)
            saver = checkpoint_saver(self.trainer)
            log_end(folder, saver, self.data.has_test, time.monotonic() - self.begun)
            if self.complete:  # again, since the evaluation moved it out of sight
                log.info("%s", self.complete)
            complete(self.trackers, folder, results.get("test", {}), self.trainer.global_step)
        print_once(folder)
        for split, values in results.items():
            self.refuse_not_finite_loss(split, values, folder)

    def _log_what_is_left(self) -> None:
        """Log how to continue after an interruption."""
        if self.is_evaluated and self.folder is not None:
            run = shlex.quote(short_path(self.folder))
            log.info("Stopped. Training and evaluation are complete; to write the report: imgcls report %s", run)
            return
        saver = checkpoint_saver(self.trainer)
        if self.trial is not None or self.folder is None or saver is None or not saver.last.exists():
            return
        config = shlex.quote(short_path(self.folder / "config.yaml"))
        more = " --experiment.only_weights_load false" if self.parts.experiment.only_weights_load else ""
        where = f" (saved {saver.saved_at})" if saver.saved_at else ""
        log.info("Stopped%s. To resume: imgcls fit %s --ckpt_path last%s", where, config, more)
