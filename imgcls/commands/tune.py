"""The command tune: check a search before anything is trained, run it, and report the best trial."""

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import optuna
import yaml
from filelock import FileLock, Timeout

from imgcls.checkpoints.io import is_intact
from imgcls.checkpoints.run_folder import CHECKPOINTS, LAST, LOCK
from imgcls.commands.command import Parts
from imgcls.commands.fit_callbacks import monitoring_callbacks
from imgcls.commands.monitored_values import Monitored
from imgcls.commands.refused_options import check_options
from imgcls.commands.trainer import as_list
from imgcls.commands.tune_workers import WORKER, run_workers
from imgcls.config.overrides import Config, value_at, with_values
from imgcls.config.sections import Direction, OptunaConfig, SearchSpace
from imgcls.errors import ConfigError, RunError
from imgcls.runtime.tables import print_table
from imgcls.tune.near_best import sentences
from imgcls.tune.results import Results
from imgcls.tune.search_setup import FitTrial, Task, check_values
from imgcls.tune.search_space import Space
from imgcls.tune.study import SharedStudy
from imgcls.tune.trial_states import BEST_EPOCH
from imgcls.tune.worker import Worker

log = logging.getLogger(__name__)

FOLDER = "tune"
RETRAINED = "retrained"
_SPACES = "optuna.search_spaces"
_VALIDATION = "data.init_args.dataset_classes.validation"
_SCHEDULE = "model.init_args.scheduler_config.name"


class Tune:
    """A search over keys of the configuration.

    Args:
        parts: The configuration and what is made of it.
        check: Parses the configuration of a trial and makes its classes; raises an error if it is wrong.
        fit: Fits the configuration of a trial.
        arguments: The command line, for worker processes.

    Raises:
        ConfigError: If a key, value, metric or option is wrong.
    """

    def __init__(self, parts: Parts, check: Callable[[Config], None], fit: FitTrial, arguments: Sequence[str]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # imgcls logs each trial itself
        self.parts = parts
        self.config: OptunaConfig = parts.section["optuna"]
        self.arguments = list(arguments)
        if self.config.tune is False:
            raise ConfigError("optuna.tune must be true or null for imgcls tune, got false")
        # plain values: in the parsed section, choices that name a class are instantiated already
        spaces = parts.saved["optuna"]["search_spaces"]
        self._check_options()
        space = Space({key: SearchSpace(**values) for key, values in spaces.items()})
        base = self._base()
        check_options(parts.options | {"devices": base["trainer"]["devices"]}, "fit")
        parts.data.setup("fit")
        _, monitored = monitoring_callbacks(parts, None, None)
        metrics: list[str] = as_list(self.config.metric)
        if not metrics:
            raise ConfigError("optuna.metric must name a metric, for example validation_f1_score; got an empty list")
        for metric in metrics:
            monitored.require("optuna.metric", metric)
        if self.config.retrain:
            _check_retrain(space, base, parts.data.streams)
        base["experiment"]["monitor"] = base["experiment"]["monitor"] or metrics[0]
        _check_same_validation(space, base)
        check_values(space, base, check)
        runs = parts.runs_folder
        name = self.config.study_name
        folder = runs / (f"{FOLDER}-{name}" if name else FOLDER)
        directions = _directions(self.config, metrics, monitored)
        images = _images(parts.data.splitter.record())
        name = name or runs.name
        self.task = Task(self.config, metrics, directions, base, images, space, folder, name, fit, parts.drawn_seed)

    def _check_options(self) -> None:
        options = self.parts.options
        if self.parts.ckpt_path is not None:
            raise ConfigError("ckpt_path must be null in a search, which resumes its own trials; leave it out")
        if self.parts.experiment.only_weights_load:
            raise ConfigError("experiment.only_weights_load must be false in a search, which loads no checkpoint")
        if options["fast_dev_run"]:
            raise ConfigError("trainer.fast_dev_run keeps no results; use --trainer.limit_train_batches 2 instead")
        if str(options["devices"]) not in {"auto", "1"} and not _is_one(options["devices"]):
            raise ConfigError(
                f"trainer.devices must be 1 in a search, got {options['devices']}; to run N trials at once: "
                "--optuna.n_jobs N"
            )
        if _is_one(options["devices"]) and self.config.n_jobs > 1:
            raise ConfigError(
                f"trainer.devices: {options['devices']} names one GPU for {self.config.n_jobs} workers; leave it out, "
                "and set CUDA_VISIBLE_DEVICES to the GPUs to use"
            )
        if options["num_nodes"] != 1:
            raise ConfigError(
                f"trainer.num_nodes must be 1 in a search, got {options['num_nodes']}; run the command on each machine"
            )
        epochs, every = options["max_epochs"] or -1, options["check_val_every_n_epoch"] or 1
        if 0 < epochs < every:
            raise ConfigError(
                f"trainer.check_val_every_n_epoch must be at most {epochs}, the number of epochs, got {every}"
            )
        fidelity = self.config.fidelity
        if fidelity is not None and fidelity.data == 1 and 0 < epochs <= (fidelity.epochs or 0):
            raise ConfigError(
                f"optuna.fidelity.epochs must be less than the {epochs} epochs of a fit, got {fidelity.epochs}"
            )

    def run(self) -> None:
        """Search, and report the best trial."""
        if self.config.n_jobs > 1:
            run_workers(self.config.n_jobs, self.arguments)
        with closing(SharedStudy(self.task)) as study:
            if self.config.n_jobs == 1:
                Worker(study).run()
            if WORKER in os.environ:
                return  # the process that started this one reports
            if study.running():
                log.info("Other workers still run trials; the last one to finish reports the results")
                return
            self._show(study, Results(study))

    def _show(self, study: SharedStudy, results: Results) -> None:
        near = results.compare()
        is_here = results.write()
        if study.best is None:
            raise RunError(f"no trial is complete; see {study.folder / 'trials.csv'}")
        plots = results.plot()
        print_table(results.best_rows())
        for line in [] if near is None else sentences(near):
            log.info("%s", line)
        log.info("Plots: %s", ", ".join(path.name for path in plots) or "none for a single trial")
        if is_here:
            config, weights = (shlex.quote(str(study.folder / name)) for name in ("best.yaml", "best.ckpt"))
            log.info("To train the best configuration again: imgcls fit --config %s", config)
            if self.parts.data.has_test:
                log.info("To test the best trial: imgcls test --ckpt_path %s", weights)
            if self.config.retrain:
                self._retrain(study)
        print(study.folder)

    def _retrain(self, study: SharedStudy) -> None:
        """Train the best configuration on train + validation; a killed fit is resumed."""
        best = study.best
        assert best is not None  # noqa: S101 - for mypy
        with study.exclusive():
            folder = study.folder / f"{RETRAINED}_{best.number:04d}"
            folder.mkdir(exist_ok=True)
        epochs = best.user_attrs[BEST_EPOCH]
        config = yaml.safe_load((study.folder / "best.yaml").read_text(encoding="utf-8"))
        last = folder / CHECKPOINTS / LAST
        try:
            with FileLock(folder / LOCK, timeout=0):
                log.info("Retraining trial %d on train + validation for %d epochs", best.number, epochs)
                start = {"ckpt_path": str(last) if is_intact(last) else None}
                self.task.fit(_unmonitored(config, epochs) | start, folder, [])
                log.info("Retrained: %s", last)
        except Timeout:
            log.info("Another worker retrains the best trial")

    def _base(self) -> Config:
        """Return the configuration that all trials share."""
        base = {key: value for key, value in self.parts.saved.items() if key != "optuna"}
        trainer = dict(base["trainer"])
        if trainer["devices"] == "auto":
            trainer["devices"] = 1
        return base | {"trainer": trainer, "experiment": dict(base["experiment"])}


def _directions(config: OptunaConfig, metrics: list[str], monitored: Monitored) -> list[Direction]:
    """Return the direction of each metric: as configured, else that of the metric itself."""
    natural: list[Direction] = ["maximize" if monitored.mode_of(metric) == "max" else "minimize" for metric in metrics]
    if config.direction is None:
        for metric, direction in zip(metrics, natural, strict=True):
            if monitored.is_guessed(metric):
                log.info("optuna.direction: %s for %s, assumed from its name", direction, metric)
        return natural
    given: list[Direction] = as_list(config.direction)
    if len(given) != len(metrics):
        raise ConfigError(f"optuna.direction must have one entry per metric ({len(metrics)}), got {len(given)}")
    for metric, ours, theirs in zip(metrics, given, natural, strict=True):
        if ours != theirs and not monitored.is_guessed(metric):
            log.warning("optuna.direction: %s for %s, for which %s is usual; used as configured", ours, metric, theirs)
    return given


def _images(record: dict[str, Any]) -> dict[str, str]:
    """Return the number of images in train and validation, with a digest of their contents and classes."""
    found = {}
    for name, contents in record["split"].items():
        digest = hashlib.sha256(json.dumps([contents, record["labels"][name]]).encode()).hexdigest()
        found[name] = f"{len(contents)} images of content {digest[:8]}"
    return found


def _check_same_validation(space: Space, base: Config) -> None:
    """Refuse to search over the training data if validation is held out of it: trials would not be comparable."""
    key = "data.init_args.dataset_classes.train"
    if any(f"{item.key}.".startswith(f"{key}.") for item in space.dimensions) and not value_at(base, _VALIDATION):
        raise ConfigError(
            f"optuna.search_spaces.{key}: validation is held out of it, and would differ between trials; set "
            f"{_VALIDATION}"
        )


def _check_retrain(space: Space, base: Config, streams: bool) -> None:
    """Refuse, before any trial, a final fit on train + validation that is impossible."""
    if streams:
        raise ConfigError(
            "optuna.retrain: true needs training data with a length, which a stream lacks; leave retrain out"
        )
    deciding = [dimension for dimension in space.dimensions if f"{_SCHEDULE}.".startswith(f"{dimension.key}.")]
    tried = [with_values(base, {each.key: value}, _SPACES) for each in deciding for value in each.probes()]
    if any(value_at(config, _SCHEDULE) == "plateau" for config in tried or [base]):
        raise ConfigError(
            "optuna.retrain: true trains without validation, which scheduler 'plateau' needs; change one of them"
        )


def _unmonitored(config: Config, epochs: int) -> Config:
    """Return the configuration of a fit on train + validation, without callbacks that monitor validation metrics."""
    callbacks = [item for item in as_list(config["trainer"]["callbacks"]) if not _watches(item)]
    config["trainer"] |= {"max_epochs": epochs, "limit_val_batches": 0, "callbacks": callbacks or None}
    config["experiment"]["monitor"] = None
    config["data"]["init_args"] |= {"train_on_validation": True, "fold": None}
    return config


def _watches(callback: dict[str, Any]) -> bool:
    arguments = callback.get("init_args") or {}
    return any("validation_" in str(arguments.get(key)) for key in ("monitor", "filename"))


def _is_one(devices: Any) -> bool:
    return isinstance(devices, list) and len(devices) == 1
