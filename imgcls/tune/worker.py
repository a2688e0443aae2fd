"""The search: each worker claims a trial, fits it, and records how it ended, until none is left."""

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch.callbacks import Callback
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from imgcls.checkpoints.io import is_intact
from imgcls.checkpoints.run_folder import CHECKPOINTS, LAST
from imgcls.config.overrides import Config, with_values
from imgcls.config.sections import Direction, Fidelity, OptunaConfig
from imgcls.errors import ConfigError, FullDiskError, NotLoggedError, RunError, did_you_mean, first_line, size_in_words
from imgcls.runtime.error_messages import reason
from imgcls.tune.pruning_callback import Reporter
from imgcls.tune.results import Results
from imgcls.tune.search_space import Space, short_names, shown
from imgcls.tune.study import BEST_EPOCH, INTERRUPTED, LOSS, Claim, SharedStudy

log = logging.getLogger(__name__)

_KEY = "optuna.search_spaces"
_FAILURES = 5  # in a row, that end the search
_SCREEN = "screen"  # a trial's value in the cheap screen

Fit = Callable[[Config, Path, Sequence[Callback]], dict[str, Any] | None]


@dataclass(frozen=True)
class Task:
    """A search, checked.

    Args:
        config: The section ``optuna``.
        metrics: Names of the logged values to optimise.
        directions: ``maximize`` or ``minimize`` of each.
        base: The resolved configuration of ``fit`` that all trials share.
        images: What tells the images of train, and those of validation, from others.
        space: The keys of the search.
        folder: The tune folder.
        name: Name of the study.
        fit: Fits a configuration in a folder, with further callbacks, and returns the values of the best epoch; None
            where the deciding value was never a number.
        drawn_seed: Whether the seed in ``base`` was drawn; a study that was begun with another one goes on with that.
    """

    config: OptunaConfig
    metrics: list[str]
    directions: list[Direction]
    base: Config
    images: dict[str, str]
    space: Space
    folder: Path
    name: str
    fit: Fit
    drawn_seed: bool

    def open(self) -> SharedStudy:
        """Open the study, or make it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        same = {"images": self.images}
        return SharedStudy(
            self.config, self.space, self.directions, self.folder, self.name, self.base | same, self.drawn_seed
        )


def check_values(space: Space, base: Config, check: Callable[[Config], None]) -> None:
    """Try every key, and values that stand for all, before the first trial.

    Args:
        space: The keys of the search.
        base: The resolved configuration.
        check: Raises where a configuration is wrong.

    Raises:
        ConfigError: Names the key and the value.
    """
    for dimension in space.dimensions:
        with_values(base, {dimension.key: None}, _KEY)  # names first: they cost nothing
    for dimension in space.dimensions:
        for value in dimension.probes():
            error = _fault(base, {dimension.key: value}, check)
            if error is not None and not _may_go(space, base, {dimension.key: value}, check):
                raise ConfigError(f"optuna.search_spaces.{dimension.key}: {value!r}: {reason(error)}") from error


def _fault(base: Config, values: dict[str, Any], check: Callable[[Config], None]) -> Exception | None:
    try:
        check(with_values(base, values, _KEY))
    except Exception as error:
        return error
    return None


def _may_go(space: Space, base: Config, values: dict[str, Any], check: Callable[[Config], None]) -> bool:
    """Whether a value that is wrong beside the values of the configuration is right beside one of another key."""
    others = [(item.key, probe) for item in space.dimensions if item.key not in values for probe in item.probes()]
    return any(_fault(base, values | {key: probe}, check) is None for key, probe in others)


class Worker:
    """Runs trials of a search in this process.

    Args:
        task: The search.
        study: Its study.
    """

    def __init__(self, task: Task, study: SharedStudy) -> None:
        self.task = task
        self.study = study
        self.results = Results(study, task.metrics)
        self.start = time.monotonic()
        self.done_before = len(study.done)
        self.failures = 0  # in a row

    def run(self) -> None:
        """Run trials until there are as many as wanted, or time is up.

        Raises:
            RunError: If five trials in a row fail, or the database is lost.
        """
        log.info("%s", self._opening())
        try:
            while not self._late():
                claim = self.study.claim()
                if claim is not None:
                    self._run_trial(claim)
                elif self.study.running():
                    time.sleep(1)  # it may die, and its trial be ours
                else:
                    break
        except StorageInternalError as error:
            free = size_in_words(shutil.disk_usage(self.task.folder).free)
            raise RunError(
                f"{self.task.folder}: the database of the study cannot be used: {first_line(error.__cause__ or error)} "
                f"({free} are free there); what is done is kept, and the same command goes on"
            ) from error

    def _run_trial(self, claim: Claim) -> None:
        number = claim.trial.number
        log.info("trial %d begins: %s", number, _listed(self.task.space.values(claim.trial.params)))
        try:
            with diverted(claim.folder / "log.txt"), self.study.alive(claim):
                row = self._fit(claim)
            values = _numbers(row, self.task.metrics)
        except optuna.TrialPruned as pruned:
            self._record(claim, TrialState.PRUNED, f"pruned in {pruned}")
        except (KeyboardInterrupt, SystemExit):
            self.study.finish(claim, TrialState.FAIL, reason=INTERRUPTED)
            log.info("trial %d is interrupted; the same command goes on with it", number)
            raise
        except (FullDiskError, NotLoggedError):  # the next trial would fail alike
            with suppress(StorageInternalError):  # whose database may be on that disk; then the trial counts as killed
                self.study.finish(claim, TrialState.FAIL, reason=INTERRUPTED)
            raise
        except Exception as error:
            text = reason(error)
            self._record(claim, TrialState.FAIL, f"failed: {text}", reason=text)
        else:
            texts = [f"{name} {value:.4f}" for name, value in zip(self.task.metrics, values, strict=True)]
            kept = {BEST_EPOCH: row["epoch"] + 1} | ({LOSS: row[LOSS]} if LOSS in row else {})
            self._record(claim, TrialState.COMPLETE, ", ".join(texts), values, **kept)
        log.info("%s", self._progress())

    def _fit(self, claim: Claim) -> dict[str, Any]:
        base = self.task.base | {"seed_everything": self.study.seed}
        config = with_values(base, self.task.space.values(claim.trial.params), _KEY)
        fidelity = self.task.config.fidelity
        if fidelity is not None:
            self._screen(claim, config, fidelity)
        last = claim.folder / CHECKPOINTS / LAST
        if is_intact(last):
            config["ckpt_path"] = str(last)
        reporters = []
        if len(self.task.metrics) == 1:  # Optuna takes no values of epochs for several
            reporters = [Reporter(claim.trial, self.task.metrics[0], int(fidelity is not None), self.task.folder)]
        return self._best_row(config, claim.folder, reporters)

    def _best_row(self, config: Config, folder: Path, callbacks: Sequence[Callback]) -> dict[str, Any]:
        row = self.task.fit(config, folder, callbacks)
        if row is None:
            raise RunError(f"no epoch has a finite {config['experiment']['monitor']}")
        return row

    def _screen(self, claim: Claim, config: Config, fidelity: Fidelity) -> None:
        """Train a little, and go on only with the best (Li et al., Massively Parallel Hyperparameter Tuning, 2020).

        Raises:
            TrialPruned: If the trial is not among the best share.
        """
        trial, metric = claim.trial, self.task.metrics[0]
        if _SCREEN not in trial.user_attrs:
            folder = claim.folder / _SCREEN
            folder.mkdir(exist_ok=True)  # which a logger would make, if there is one
            row = self._best_row(_screening(config, fidelity), folder, [])
            [value] = _numbers(row, [metric])
            if len(self.task.metrics) == 1:
                trial.report(value, 0)
            trial.set_user_attr(_SCREEN, value)
        sign = 1 if self.task.directions[0] == "maximize" else -1
        screened = [other for other in self.study.counted if _SCREEN in other.user_attrs]
        ranked = sorted(screened, key=lambda other: (-sign * other.user_attrs[_SCREEN], other.number))
        best = [other.number for other in ranked[: max(1, math.floor(fidelity.keep * len(ranked)))]]
        if trial.number not in best:
            raise optuna.TrialPruned(f"the screen: {metric} {trial.user_attrs[_SCREEN]:.4f}")

    def _record(
        self,
        claim: Claim,
        state: TrialState,
        text: str,
        values: Sequence[float] | None = None,
        **attributes: str | float,
    ) -> None:
        self.study.finish(claim, state, values, **attributes)
        self.results.write()
        log.info("trial %d %s", claim.trial.number, text)
        self.failures = self.failures + 1 if state == TrialState.FAIL else 0
        if self.failures == _FAILURES:
            raise RunError(
                f"{_FAILURES} trials in a row failed, the last one: {attributes.get('reason')}; see "
                f"{claim.folder / 'log.txt'}, mend it, and start again"
            )

    # -- what is said

    def _late(self) -> bool:
        timeout = self.task.config.timeout
        if timeout is None or time.monotonic() - self.start < timeout:
            return False
        log.info("optuna.timeout: %.0f s are over; no new trial begins", timeout)
        return True

    def _opening(self) -> str:
        done, total = len(self.study.done), self.task.config.n_trials
        text = f"study {self.task.name!r} in {self.task.folder}: {done} of {total} trials are done"
        size = self.task.space.size()
        return text + (f"; there are {size} combinations" if size is not None and size < total else "")

    def _progress(self) -> str:
        done, total = len(self.study.done), self.study.total()
        best = self.study.best
        text = f"{done} of {total} trials"
        if best is not None:
            text += f" · best so far: trial {best.number}, {self.task.metrics[0]} {best.values[0]:.4f}"
        if done < total:  # at the pace of all workers
            pace = (time.monotonic() - self.start) / max(done - self.done_before, 1)
            text += f" · about {_duration((total - done) * pace)} left"
        return text


def _screening(config: Config, fidelity: Fidelity) -> Config:
    trainer = config["trainer"]
    epochs = trainer["max_epochs"] if fidelity.epochs is None else fidelity.epochs
    limit = 1.0 if trainer["limit_train_batches"] is None else trainer["limit_train_batches"]
    share = limit * fidelity.data if isinstance(limit, float) else max(round(limit * fidelity.data), 1)
    return config | {"trainer": trainer | {"max_epochs": epochs, "limit_train_batches": share}}


def _numbers(row: dict[str, Any], metrics: list[str]) -> list[float]:
    """Return the values; a metric may be a number where the loss is none, but means nothing then."""
    losses = [name for name in ("train_loss", "validation_loss") if name in row]
    for name in (*metrics, *losses):
        if name not in row:
            hint = f"{did_you_mean(name, row)}; logged: {', '.join(row)}"
            raise NotLoggedError(f"optuna.metric: {name!r} was not logged{hint}")
        if not math.isfinite(row[name]):
            raise RunError(f"{name} is {row[name]}")
    return [float(row[metric]) for metric in metrics]


class _TrialLog(logging.FileHandler):
    """A log that says nothing of a full disk or a removed folder: the trial's own files say it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the record out."""

    def flush(self) -> None:
        """Write what there is room for."""
        with suppress(OSError):
            super().flush()


@contextmanager
def diverted(path: Path) -> Iterator[None]:
    """Send what a fit says into a file, and only warnings to the terminal."""

    def ours(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith("imgcls.tune")

    logger = logging.getLogger("imgcls")
    shown = list(logger.handlers)
    file = _TrialLog(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(file)
    for handler in shown:
        handler.addFilter(ours)
    try:
        yield
    except optuna.TrialPruned:
        raise
    except Exception:
        file.handle(logger.makeRecord("imgcls", logging.ERROR, __file__, 0, "the trial failed", (), sys.exc_info()))
        raise
    finally:
        for handler in shown:
            handler.removeFilter(ours)
        logger.removeHandler(file)
        file.close()


def _listed(values: dict[str, Any]) -> str:
    names = short_names(list(values))
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(names, values.values(), strict=True))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
