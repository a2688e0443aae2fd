"""The command ``tune``: checks the search before anything is trained, and runs its workers."""

import hashlib
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import optuna
import torch
import yaml
from filelock import FileLock, Timeout

from imgcls.checkpoints.io import is_intact
from imgcls.checkpoints.run_folder import CHECKPOINTS, LAST, LOCK
from imgcls.commands.command import Parts
from imgcls.commands.default_callbacks import shown_callbacks, user_callbacks
from imgcls.commands.monitored_values import Monitored, monitored_values
from imgcls.commands.refusals import check_options
from imgcls.commands.trainer import as_list
from imgcls.config.overrides import Config, value_at, with_values
from imgcls.config.sections import Direction, OptunaConfig, SearchSpace
from imgcls.errors import ConfigError, RunError
from imgcls.runtime.cores import CORES, available_cores
from imgcls.runtime.signals import end_with_this, postponed
from imgcls.runtime.tables import print_table
from imgcls.tune.results import Results
from imgcls.tune.search_space import Space
from imgcls.tune.study import SharedStudy
from imgcls.tune.task import Fit, Task, check_values
from imgcls.tune.trial_states import BEST_EPOCH
from imgcls.tune.worker import Worker

log = logging.getLogger(__name__)

FOLDER = "tune"
_WORKER = "IMGCLS_WORKER"  # set for the processes of n_jobs
_SECONDS_TO_END = 20.0  # that a worker has after a signal
RETRAINED = "retrained"
_SPACES = "optuna.search_spaces"
_VALIDATION = "data.init_args.dataset_classes.validation"
_SCHEDULE = "model.init_args.scheduler_config.name"


class Tune:
    """A search over keys of the configuration.

    Args:
        parts: The configuration and what is made of it.
        check: Parses and makes a configuration; raises where it is wrong.
        fit: Fits one.
        arguments: The command line, for further workers.

    Raises:
        ConfigError: If a key, value, metric or option is wrong.
    """

    def __init__(self, parts: Parts, check: Callable[[Config], None], fit: Fit, arguments: Sequence[str]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the search has its own lines
        self.parts = parts
        self.config: OptunaConfig = parts.section["optuna"]
        self.arguments = list(arguments)
        if self.config.tune is False:
            raise ConfigError("optuna.tune: false, and the command is tune; remove the key, or set it to true")
        # from the plain values: within the parsed section, choices that name a class are made already
        spaces = parts.saved["optuna"]["search_spaces"]
        self._check_options()
        space = Space({key: SearchSpace(**values) for key, values in spaces.items()})
        base = self._base()
        check_options(parts.options | {"devices": base["trainer"]["devices"]}, "fit")
        monitored = self._monitored()
        metrics: list[str] = as_list(self.config.metric)
        if not metrics:
            raise ConfigError("optuna.metric: an empty list; name one, such as validation_f1_score")
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
        section, options = self.parts.section, self.parts.options
        if section["ckpt_path"] is not None:
            raise ConfigError("ckpt_path: a search begins its trials anew, and goes on by itself; leave it out")
        if self.parts.experiment.only_weights_load:
            raise ConfigError("experiment.only_weights_load: true, but a search takes no checkpoint; leave it out")
        if options["fast_dev_run"]:
            raise ConfigError("trainer.fast_dev_run: keeps nothing; try --trainer.limit_train_batches 2 in its place")
        if str(options["devices"]) not in {"auto", "1"} and not _is_one(options["devices"]):
            raise ConfigError(
                f"trainer.devices: {options['devices']}; a trial runs on one device: --optuna.n_jobs N runs N at once"
            )
        if _is_one(options["devices"]) and self.config.n_jobs > 1:
            raise ConfigError(
                f"trainer.devices: {options['devices']}, but of {self.config.n_jobs} workers each takes a GPU; leave "
                "it out, and name the GPUs in CUDA_VISIBLE_DEVICES"
            )
        if options["num_nodes"] != 1:
            raise ConfigError("trainer.num_nodes: a trial runs on one machine; start the command on each of them")
        epochs, every = options["max_epochs"] or -1, options["check_val_every_n_epoch"] or 1
        if 0 < epochs < every:
            raise ConfigError(f"trainer.check_val_every_n_epoch: {every}, of {epochs} epochs: none would be validated")
        fidelity = self.config.fidelity
        if fidelity is not None and fidelity.data == 1 and 0 < epochs <= (fidelity.epochs or 0):
            raise ConfigError(
                f"optuna.fidelity.epochs: {fidelity.epochs}; a screen takes fewer than the {epochs} of a fit"
            )

    def run(self) -> None:
        """Search, and show what is best."""
        if self.config.n_jobs > 1:
            _run_workers(self.config.n_jobs, self.arguments)
        with closing(self.task.open()) as study:
            if self.config.n_jobs == 1:
                Worker(self.task, study).run()
            if _WORKER in os.environ:
                return  # the process that started this one shows the results
            if study.running():
                log.info("other workers are at their last trials; the last one ends the search")
                return
            self._show(study, Results(study, self.task.metrics))

    def _show(self, study: SharedStudy, results: Results) -> None:
        is_here = results.write()
        if study.best is None:
            raise RunError(f"no trial is complete; {study.folder / 'trials.csv'} says why")
        plots = results.plot()
        print_table(results.best_rows())
        log.info("plots: %s", ", ".join(path.name for path in plots) or "none, of a single trial")
        if is_here:
            config, weights = (shlex.quote(str(study.folder / name)) for name in ("best.yaml", "best.ckpt"))
            log.info("imgcls fit --config %s fits the best again", config)
            if self.parts.data.has_test:
                log.info("imgcls test --ckpt_path %s tests it", weights)
            if self.config.retrain:
                self._retrain(study)
        print(study.folder)

    def _retrain(self, study: SharedStudy) -> None:
        """Fit the best once more, on train and validation; a fit that was killed goes on."""
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
                log.info("retrain: trial %d on train + validation, for %d epochs", best.number, epochs)
                start = {"ckpt_path": str(last) if is_intact(last) else None}
                self.task.fit(_unmonitored(config, epochs) | start, folder, [])
                log.info("retrained: %s", last)
        except Timeout:
            log.info("retrain: another worker does it")

    def _base(self) -> Config:
        """The configuration that all trials share."""
        base = {key: value for key, value in self.parts.saved.items() if key != "optuna"}
        trainer = dict(base["trainer"])
        if trainer["devices"] == "auto":
            trainer["devices"] = 1
        return base | {"trainer": trainer, "experiment": dict(base["experiment"])}

    def _monitored(self) -> Monitored:
        parts = self.parts
        callbacks = user_callbacks(parts.options)
        if parts.experiment.default_callbacks:
            callbacks = shown_callbacks(callbacks, parts.options)
        data = parts.data
        data.setup("fit")
        return monitored_values(
            callbacks, parts.options, parts.model, data.class_names, data.multilabel, parts.experiment.monitor
        )


def _directions(config: OptunaConfig, metrics: list[str], monitored: Monitored) -> list[Direction]:
    """Return the direction of each metric, as configured or as the metric has it."""
    natural: list[Direction] = ["maximize" if monitored.mode_of(metric) == "max" else "minimize" for metric in metrics]
    if config.direction is None:
        for metric, direction in zip(metrics, natural, strict=True):
            if monitored.is_guessed(metric):
                log.info("optuna.direction: %s of %s, assumed from its name", direction, metric)
        return natural
    given: list[Direction] = as_list(config.direction)
    if len(given) != len(metrics):
        raise ConfigError(f"optuna.direction: {len(given)} for {len(metrics)} metrics; give one for each")
    for metric, ours, theirs in zip(metrics, given, natural, strict=True):
        if ours != theirs and not monitored.is_guessed(metric):
            log.warning("optuna.direction: %s of %s, though %s is better: as you say", ours, metric, theirs)
    return given


def _images(record: dict[str, Any]) -> dict[str, str]:
    """Return of train and validation how many images there are, and a digest of their contents and classes."""
    found = {}
    for name, contents in record["split"].items():
        digest = hashlib.sha256(json.dumps([contents, record["labels"][name]]).encode()).hexdigest()
        found[name] = f"{len(contents)} images of content {digest[:8]}"
    return found


def _check_same_validation(space: Space, base: Config) -> None:
    """Refuse to search over train where validation is held out of it: trials would not compare."""
    key = "data.init_args.dataset_classes.train"
    if any(f"{item.key}.".startswith(f"{key}.") for item in space.dimensions) and not value_at(base, _VALIDATION):
        raise ConfigError(
            f"optuna.search_spaces.{key}: validation is held out of it, and must be the same in all trials, so that "
            f"they compare; give {_VALIDATION}"
        )


def _check_retrain(space: Space, base: Config, streams: bool) -> None:
    """Refuse, before any trial, a last fit on train and validation that could not be."""
    if streams:
        raise ConfigError(
            "optuna.retrain: true, but train is a stream, which cannot be joined with validation; leave out retrain"
        )
    deciding = [dimension for dimension in space.dimensions if f"{_SCHEDULE}.".startswith(f"{dimension.key}.")]
    tried = [with_values(base, {each.key: value}, _SPACES) for each in deciding for value in each.probes()]
    if any(value_at(config, _SCHEDULE) == "plateau" for config in tried or [base]):
        raise ConfigError(
            "optuna.retrain: true, but scheduler 'plateau' waits for validations, and train + validation leaves none; "
            "leave out one of them"
        )


def _unmonitored(config: Config, epochs: int) -> Config:
    """Return the configuration of a fit on train and validation, which nothing can watch."""
    callbacks = [item for item in as_list(config["trainer"]["callbacks"]) if not _watches(item)]
    config["trainer"] |= {"max_epochs": epochs, "limit_val_batches": 0, "callbacks": callbacks or None}
    config["experiment"]["monitor"] = None
    config["data"]["init_args"] |= {"train_on_validation": True, "fold": None}
    return config


def _watches(callback: dict[str, Any]) -> bool:
    arguments = callback.get("init_args") or {}
    return any("validation_" in str(arguments.get(key)) for key in ("monitor", "filename"))


def _run_workers(count: int, arguments: list[str]) -> None:
    """Run as many processes of the same command; one that is killed leaves its trial to the others.

    Raises:
        RunError: If none ended well.
    """
    # -P: the working directory comes last on the path, as in this process
    line = [sys.executable, "-P", "-m", "imgcls", *arguments, "--optuna.n_jobs=1"]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            with postponed():  # a worker that runs is known here
                workers.append(_start(line, _environment(number, count)))
                end_with_this(workers[-1:])
        codes = [worker.wait() for worker in workers]
    except (KeyboardInterrupt, SystemExit):
        _end(workers)
        raise
    for number, code in enumerate(codes):
        if code:
            log.warning("worker %d ended with code %d", number, code)
    if all(codes):
        raise SystemExit(max(codes)) if max(codes) > 0 else RunError("all workers were killed")


def _end(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Tell the workers to end; where a terminal has told them already, it is the same signal to them."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _is_one(devices: Any) -> bool:
    return isinstance(devices, list) and len(devices) == 1


def _start(line: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command again


def _environment(number: int, count: int) -> dict[str, str]:
    """Give each worker a GPU where there are several, and its share of the cores."""
    environment = os.environ | {_WORKER: str(number), CORES: str(max(available_cores() // count, 1))}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = environment.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
    environment.setdefault("OMP_NUM_THREADS", str(max(torch.get_num_threads() // count, 1)))
    return environment
