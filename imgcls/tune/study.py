"""The study shared by all workers of a search: claim and finish trials, queue dead ones again, find the best."""

import logging
import math
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from imgcls.checkpoints.run_folder import lock_run_folder
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import sweep, write_text
from imgcls.tune.pruning import make_pruner
from imgcls.tune.samplers import DistinctSampler, make_sampler
from imgcls.tune.search_setup import Task
from imgcls.tune.search_space import identity
from imgcls.tune.storage import HEARTBEAT, lock_of, open_storage, patiently
from imgcls.tune.study_config import SEED, check_configuration, recorded_seed
from imgcls.tune.trial_states import FOLDER, HOST, INTERRUPTED, LOSS, REASON, counts, is_dead, requeue

log = logging.getLogger(__name__)

_ID = "id"  # user attribute of the study, also stored in its folder
_ID_FILE = ".study"


@dataclass
class TrialClaim:
    """A trial that this process runs.

    Args:
        trial: Optuna's trial.
        folder: Its run folder.
        lock: Lock on the folder, by which other workers see that the trial is not dead.
    """

    trial: Trial
    folder: Path
    lock: FileLock


class SharedStudy:
    """The Optuna study of a search, in a database that several workers use; opened, or created.

    Raises:
        ConfigError: If the database cannot be used or contains another search of that name.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.config, self.space, self.folder = task.config, task.space, task.folder
        make_sampler(self.config, self.space, number=0)  # fails for an unsuitable space before anything is written
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage: RDBStorage = open_storage(self.config.storage, self.folder, requeue)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=task.name,
            directions=task.directions,
            pruner=make_pruner(self.config, task.base["trainer"]["max_epochs"]),
            load_if_exists=True,
        )
        self._lock = lock_of(self.storage, self.study, self.folder)
        with self.exclusive():
            seed = task.base.get(SEED)
            self.seed = recorded_seed(self.study, seed) if task.drawn_seed else seed
            self._id = self._check_folder()
            sweep(self.folder)
            section = vars(self.config) | {"search_spaces": self.space.given, "direction": task.directions}
            fixed = task.base | {"images": task.images, SEED: self.seed, "optuna": section}
            check_configuration(self.study, fixed)

    def close(self) -> None:
        """Close the connections to the database."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Exclude the other workers during the block."""
        with patiently(self.folder), self._lock():
            yield

    # -- all trials

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials; read-only."""
        return self.study.get_trials(deepcopy=False)

    @property
    def counted(self) -> list[FrozenTrial]:
        """Trials that are part of ``n_trials``: those that run and those that ended by themselves."""
        return [trial for trial in self.trials if counts(trial)]

    @property
    def done(self) -> list[FrozenTrial]:
        """Trials that ended by themselves: complete, pruned or failed."""
        return [trial for trial in self.counted if trial.state != TrialState.RUNNING]

    @property
    def complete(self) -> list[FrozenTrial]:
        """Trials that have a value."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    @property
    def ranked(self) -> list[FrozenTrial]:
        """Complete trials by their first metric, the best first; with several metrics, those of the Pareto front.

        Ties are broken by the lower ``validation_loss``, then by the lower number.
        """
        sign = -1 if self.task.directions[0] == "maximize" else 1
        trials = self.complete if len(self.task.metrics) == 1 else self.study.best_trials
        losses = {trial.number: trial.user_attrs.get(LOSS, math.inf) for trial in trials}
        return sorted(trials, key=lambda trial: (sign * trial.values[0], losses[trial.number], trial.number))

    @property
    def best(self) -> FrozenTrial | None:
        """The first of the ranked trials; None if no trial is complete."""
        return next(iter(self.ranked), None)

    def remaining(self) -> int:
        """Return the number of trials that may still start, limited by the untried combinations."""
        size = self.space.size()
        missing = self.config.n_trials - len(self.counted)
        if size is None:
            return missing
        return min(missing, size - len({identity(trial.params) for trial in self.counted}))

    def total(self) -> int:
        """Return the number of trials that there will be."""
        return len(self.counted) + max(self.remaining(), 0)

    def running(self) -> int:
        """Return the number of trials that other workers run; queues the trials of dead workers again."""
        with self.exclusive():
            self._requeue_dead()
            return sum(trial.state == TrialState.RUNNING for trial in self.trials)

    # -- a trial of this process

    def claim(self) -> TrialClaim | None:
        """Start a trial; None if none remains."""
        with self.exclusive():
            self._requeue_dead()
            if self.remaining() <= 0:
                return None
            sampler = make_sampler(self.config, self.space, len(self.trials))
            self.study.sampler = DistinctSampler(sampler, self.space, self.study)
            trial = self.study.ask(self.space.distributions)
            folder, lock = self._lock_folder(trial)
            trial.set_user_attr(HOST, socket.gethostname())
            trial.set_user_attr(FOLDER, str(folder))
            self._beat(trial)
        return TrialClaim(trial, folder, lock)

    def finish(
        self, claim: TrialClaim, state: TrialState, values: Sequence[float] | None = None, **attributes: str | float
    ) -> None:
        """Record the state, values and attributes of a trial; queue it again if it was interrupted."""
        number = claim.trial.number
        with self.exclusive():
            if self.trials[number].state != TrialState.RUNNING:  # this process was suspended for too long
                log.warning("trial %d had no heartbeat for too long and is repeated by another worker", number)
            else:
                for name, value in attributes.items():
                    claim.trial.set_user_attr(name, value)
                self.study.tell(number, values, state)
                if attributes.get(REASON) == INTERRUPTED:
                    requeue(self.study, self.trials[number])
        claim.lock.release()

    @contextmanager
    def heartbeat(self, claim: TrialClaim) -> Iterator[None]:
        """Record heartbeats of a trial during the block."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT):
                try:
                    self._beat(claim.trial)
                except StorageInternalError as error:  # the next one may succeed; else the trial itself fails
                    log.debug("no heartbeat: %s", error)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    def _beat(self, trial: Trial) -> None:
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        self.storage.record_heartbeat(self.storage.get_trial_id_from_study_id_trial_number(study_id, trial.number))

    def _requeue_dead(self) -> None:
        fail_stale_trials(self.study)  # those of other machines
        for trial in self.trials:
            if trial.state == TrialState.RUNNING and is_dead(trial):
                log.warning("trial %d was killed; it is repeated with the same parameters", trial.number)
                self.study.tell(trial.number, state=TrialState.FAIL)
                requeue(self.study, trial)

    # -- folders

    def folder_of(self, trial: FrozenTrial | Trial) -> Path | None:
        """Return the run folder of a trial; None if it is on another machine. The tune folder may have moved."""
        if FOLDER not in trial.user_attrs:
            return None
        recorded = Path(trial.user_attrs[FOLDER])
        candidates = (self.folder / recorded.name, recorded)
        return next((path for path in candidates if path.is_dir() and _study_id(path.parent) == self._id), None)

    def _lock_folder(self, trial: Trial) -> tuple[Path, FileLock]:
        """Return the locked folder of a trial; a repeated trial resumes in its former one if possible."""
        former = self.folder_of(trial)
        if former is not None:
            try:
                return former, lock_run_folder(former)
            except ConfigError:
                log.info("trial %d starts from scratch: %s is in use", trial.number, former)
        folder = self.folder / f"trial_{trial.number:04d}"
        folder.mkdir(exist_ok=True)
        return folder, lock_run_folder(folder)

    def _check_folder(self) -> str:
        """Write the study id into the tune folder; refuse a folder that belongs to another study."""
        if _ID not in self.study.user_attrs:
            self.study.set_user_attr(_ID, secrets.token_hex(8))
        study_id: str = self.study.user_attrs[_ID]
        if _study_id(self.folder) is None:
            write_text(self.folder / _ID_FILE, study_id)
        elif _study_id(self.folder) != study_id:
            raise ConfigError(
                f"{self.folder}: contains the results of another study in another database; resume that one "
                "(optuna.storage) or start a new study: --optuna.study_name NAME"
            )
        return study_id


def _study_id(folder: Path) -> str | None:
    file = folder / _ID_FILE
    return file.read_text(encoding="utf-8") if file.is_file() else None
