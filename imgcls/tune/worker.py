"""A worker of a search: claims a trial, fits it and records the result, until none remains."""

import logging
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch.callbacks import Callback
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from imgcls.checkpoints.io import is_intact
from imgcls.checkpoints.run_folder import CHECKPOINTS, LAST
from imgcls.config.overrides import Config, with_values
from imgcls.config.sections import Fidelity
from imgcls.errors import FullDiskError, NotLoggedError, RunError, did_you_mean, first_line, size_in_words
from imgcls.runtime.error_messages import reason
from imgcls.runtime.progress import duration
from imgcls.tune.pruning import SCREEN, PruningCallback, screening_config, survives
from imgcls.tune.results import Results
from imgcls.tune.search_space import KEY, short_names, shown
from imgcls.tune.study import SharedStudy, TrialClaim
from imgcls.tune.study_config import SEED
from imgcls.tune.trial_log import redirected
from imgcls.tune.trial_states import BEST_EPOCH, INTERRUPTED, LOSS

log = logging.getLogger(__name__)

_MAX_FAILURES = 5  # in a row


class Worker:
    """Runs trials of a search in this process."""

    def __init__(self, study: SharedStudy) -> None:
        self.task = study.task
        self.study = study
        self.results = Results(study)
        self.start = time.monotonic()
        self.done_before = len(study.done)
        self.failures = 0  # in a row

    def run(self) -> None:
        """Run trials until there are ``n_trials`` or the time is over.

        Raises:
            RunError: If five trials in a row fail, or the database is lost.
        """
        log.info("%s", self._opening())
        try:
            while not self._is_late():
                claim = self.study.claim()
                if claim is not None:
                    self._run_trial(claim)
                elif self.study.running():
                    time.sleep(1)  # another worker may die, and this one then repeats its trial
                else:
                    break
        except StorageInternalError as error:
            free = size_in_words(shutil.disk_usage(self.task.folder).free)
            raise RunError(
                f"{self.task.folder}: the database of the study cannot be used: {first_line(error.__cause__ or error)} "
                f"({free} are free there); finished trials are kept, and the same command resumes the search"
            ) from error

    def _run_trial(self, claim: TrialClaim) -> None:
        number = claim.trial.number
        log.info("trial %d starts: %s", number, _listed(self.task.space.values(claim.trial.params)))
        try:
            with redirected(claim.folder / "log.txt"), self.study.heartbeat(claim):
                row = self._fit(claim)
            values = _finite_values(row, self.task.metrics)
        except optuna.TrialPruned as pruned:
            self._record(claim, TrialState.PRUNED, f"pruned in {pruned}")
        except (KeyboardInterrupt, SystemExit):
            self.study.finish(claim, TrialState.FAIL, reason=INTERRUPTED)
            log.info("trial %d is interrupted; the same command resumes it", number)
            raise
        except (FullDiskError, NotLoggedError):  # the next trial would fail likewise
            with suppress(StorageInternalError):  # if the database is on the full disk, the trial counts as killed
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

    def _fit(self, claim: TrialClaim) -> dict[str, Any]:
        base = self.task.base | {SEED: self.study.seed}
        config = with_values(base, self.task.space.values(claim.trial.params), KEY)
        fidelity = self.task.config.fidelity
        if fidelity is not None:
            self._screen(claim, config, fidelity)
        last = claim.folder / CHECKPOINTS / LAST
        if is_intact(last):
            config["ckpt_path"] = str(last)
        callbacks = []
        if len(self.task.metrics) == 1:  # Optuna does not prune multi-objective studies
            offset = int(fidelity is not None)
            callbacks = [PruningCallback(claim.trial, self.task.metrics[0], offset, self.task.folder)]
        return self._best_row(config, claim.folder, callbacks)

    def _best_row(self, config: Config, folder: Path, callbacks: Sequence[Callback]) -> dict[str, Any]:
        row = self.task.fit(config, folder, callbacks)
        if row is None:
            raise RunError(f"{config['experiment']['monitor']} is not finite in any epoch")
        return row

    def _screen(self, claim: TrialClaim, config: Config, fidelity: Fidelity) -> None:
        """Run the screening fit, unless a repeated trial has done it.

        Raises:
            TrialPruned: If the trial is not among the best share.
        """
        trial, metric = claim.trial, self.task.metrics[0]
        if SCREEN not in trial.user_attrs:
            folder = claim.folder / SCREEN
            folder.mkdir(exist_ok=True)  # needed without a logger
            row = self._best_row(screening_config(config, fidelity), folder, [])
            [value] = _finite_values(row, [metric])
            if len(self.task.metrics) == 1:
                trial.report(value, 0)
            trial.set_user_attr(SCREEN, value)
        if not survives(trial.number, self.study.counted, self.task.directions[0] == "maximize", fidelity.keep):
            raise optuna.TrialPruned(f"the screening fit: {metric} {trial.user_attrs[SCREEN]:.4f}")

    def _record(
        self,
        claim: TrialClaim,
        state: TrialState,
        text: str,
        values: Sequence[float] | None = None,
        **attributes: str | float,
    ) -> None:
        self.study.finish(claim, state, values, **attributes)
        self.results.write()
        log.info("trial %d %s", claim.trial.number, text)
        self.failures = self.failures + 1 if state == TrialState.FAIL else 0
        if self.failures == _MAX_FAILURES:
            raise RunError(
                f"{_MAX_FAILURES} trials in a row failed, the last one: {attributes.get('reason')}; see "
                f"{claim.folder / 'log.txt'}, fix the cause and start again"
            )

    # -- log lines

    def _is_late(self) -> bool:
        timeout = self.task.config.timeout
        if timeout is None or time.monotonic() - self.start < timeout:
            return False
        log.info("optuna.timeout: %.0f s are over; no new trial starts", timeout)
        return True

    def _opening(self) -> str:
        done, total = len(self.study.done), self.task.config.n_trials
        text = f"study {self.task.name!r} in {self.task.folder}: {done} of {total} trials are done"
        size = self.task.space.size()
        return text + (f"; the search space has only {size} combinations" if size is not None and size < total else "")

    def _progress(self) -> str:
        done, total = len(self.study.done), self.study.total()
        best = self.study.best
        text = f"{done} of {total} trials"
        if best is not None:
            text += f" · best so far: trial {best.number}, {self.task.metrics[0]} {best.values[0]:.4f}"
        if done < total:
            seconds = (time.monotonic() - self.start) / max(done - self.done_before, 1)  # of all workers
            text += f" · about {duration((total - done) * seconds)} left"
        return text


def _finite_values(row: dict[str, Any], metrics: list[str]) -> list[float]:
    """Return the values of the metrics; refuse them if a loss is not finite, since they mean nothing then."""
    losses = [name for name in ("train_loss", "validation_loss") if name in row]
    for name in (*metrics, *losses):
        if name not in row:
            hint = f"{did_you_mean(name, row)}; logged: {', '.join(row)}"
            raise NotLoggedError(f"optuna.metric: {name!r} was not logged{hint}")
        if not math.isfinite(row[name]):
            raise RunError(f"{name} is {row[name]}")
    return [float(row[metric]) for metric in metrics]


def _listed(values: dict[str, Any]) -> str:
    names = short_names(list(values))
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(names, values.values(), strict=True))
