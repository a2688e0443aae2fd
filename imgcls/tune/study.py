"""The study that all workers of a search share: who may begin a trial, which trials are dead, what counts."""

import json
import logging
import math
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from imgcls.checkpoints.run_folder import LOCK, hold
from imgcls.config.overrides import leaves, public_class
from imgcls.config.sections import Direction, OptunaConfig
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import sweep, write_text
from imgcls.tune.samplers import DistinctSampler, make_pruner, make_sampler
from imgcls.tune.search_space import Space, identity
from imgcls.tune.storage import HEARTBEAT, open_storage, patiently, turn_of

log = logging.getLogger(__name__)

REASON = "reason"  # why a trial failed; a failed trial without one was killed
INTERRUPTED = "interrupted"  # a reason that is no failure
BEST_EPOCH = "best_epoch"  # number of epochs until the best one
LOSS = "validation_loss"  # of the best epoch, which decides among equal values
_ID = "id"  # of the study; its folder bears it too
_ID_FILE = ".study"
_KILLS = "kills"  # how often a trial was killed before
_CONFIGURATION = "configuration"  # dotted key -> value, of the study
_SEED = "seed_everything"
_MOST_KILLS = 3  # one that takes all memory would be killed for ever

# what may be another when a search goes on, with all keys within: no value of a trial follows from it
_FREE = {
    *(f"optuna.{key}" for key in ("n_trials", "timeout", "n_jobs", "tune", "keep_checkpoints", "retrain", "storage")),
    "experiment.output_dir",
    "data.init_args.num_workers",
    "data.init_args.cache_dir",
    "data.init_args.timeout",
    "data.init_args.dataset_classes.test",
    "data.init_args.dataset_classes.predict",
    *(f"trainer.{key}" for key in ("limit_test_batches", "limit_predict_batches", "log_every_n_steps", "profiler")),
    "trainer.logger",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.accelerator",
    "trainer.devices",
}


@dataclass
class Claim:
    """A trial that this process runs.

    Args:
        trial: Optuna's trial.
        folder: Its run folder.
        lock: Held while this process lives; another one sees by it that the trial is not dead.
    """

    trial: Trial
    folder: Path
    lock: FileLock


class SharedStudy:
    """An Optuna study in a database that several workers may use.

    Args:
        config: The section ``optuna``.
        space: The keys of the search.
        directions: ``maximize`` or ``minimize`` of each metric.
        folder: The tune folder.
        name: Name of the study.
        base: The configuration that all trials share.
        drawn_seed: Whether its ``seed_everything`` was drawn by this process; that of the study then counts.

    Raises:
        ConfigError: If the database cannot be used, or holds another search of that name.
    """

    def __init__(
        self,
        config: OptunaConfig,
        space: Space,
        directions: list[Direction],
        folder: Path,
        name: str,
        base: dict[str, Any],
        drawn_seed: bool = False,
    ) -> None:
        self.config = config
        self.space = space
        self.folder = folder
        make_sampler(config, space, number=0)  # refuses what it cannot draw from, before anything is written
        self.storage: RDBStorage = open_storage(config.storage, folder, _requeue)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=name,
            directions=directions,
            pruner=make_pruner(config, base["trainer"]["max_epochs"]),
            load_if_exists=True,
        )
        self._id = self.storage.get_study_id_from_name(name)
        self._turn = turn_of(self.storage, self._id, folder)
        with self.turn():
            self.seed = self._recorded_seed(base.get(_SEED)) if drawn_seed else base.get(_SEED)
            self._take_folder()
            sweep(folder)
            base = base | {_SEED: self.seed}
            self._keep_to(base | {"optuna": vars(config) | {"search_spaces": space.given, "direction": directions}})

    def close(self) -> None:
        """Close the connections to the database."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    # -- what there is

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials; not to be written to."""
        return self.study.get_trials(deepcopy=False)

    @property
    def done(self) -> list[FrozenTrial]:
        """Trials that ended by themselves: complete, pruned or failed."""
        return [trial for trial in self.trials if trial.state != TrialState.RUNNING and _counts(trial)]

    @property
    def complete(self) -> list[FrozenTrial]:
        """Trials that have a value."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    @property
    def best(self) -> FrozenTrial | None:
        """The best trial: of several metrics, that of the Pareto front with the best first one; None without any.

        Among equal values the lower ``validation_loss`` wins, then the earlier trial.
        """
        if not self.complete:
            return None
        front = self.study.best_trials
        sign = 1 if self.study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1
        return max(front, key=lambda trial: (sign * trial.values[0], -loss_of(trial), -trial.number))

    @property
    def counted(self) -> list[FrozenTrial]:
        """Trials that are of n_trials: those that ended by themselves, and those that run."""
        return [trial for trial in self.trials if _counts(trial)]

    def left(self) -> int:
        """Number of trials that may still begin; fewer than are missing where no untried combination is left."""
        size = self.space.size()
        missing = self.config.n_trials - len(self.counted)
        if size is None:
            return missing
        return min(missing, size - len({identity(trial.params) for trial in self.counted}))

    def total(self) -> int:
        """Number of trials that there will be."""
        return len(self.counted) + max(self.left(), 0)

    def running(self) -> int:
        """Number of trials that other workers run; those of dead workers are put back into the queue."""
        with self.turn():
            self._bury_dead()
            return sum(trial.state == TrialState.RUNNING for trial in self.trials)

    # -- one's own trial

    def claim(self) -> Claim | None:
        """Begin a trial, None if none is left; no two workers are in here at once."""
        with self.turn():
            self._bury_dead()
            if self.left() <= 0:
                return None
            sampler = make_sampler(self.config, self.space, len(self.trials))
            self.study.sampler = DistinctSampler(sampler, self.space, self.study)
            trial = self.study.ask(self.space.distributions)
            folder, lock = self._place_for(trial)
            trial.set_user_attr("host", socket.gethostname())
            trial.set_user_attr("folder", str(folder))
            self._beat(trial)
        return Claim(trial, folder, lock)

    def finish(
        self, claim: Claim, state: TrialState, values: Sequence[float] | None = None, **attributes: str | float
    ) -> None:
        """Record how a trial ended, and attributes of it; one that was interrupted is put back into the queue."""
        number = claim.trial.number
        with self.turn():
            if self.trials[number].state != TrialState.RUNNING:  # this process slept too long
                log.warning("trial %d was taken for dead, and is repeated by another worker", number)
            else:
                for name, value in attributes.items():
                    claim.trial.set_user_attr(name, value)
                self.study.tell(number, values, state)
                if attributes.get(REASON) == INTERRUPTED:
                    _requeue(self.study, self.trials[number])
        claim.lock.release()

    @contextmanager
    def alive(self, claim: Claim) -> Iterator[None]:
        """Tell the other workers regularly that the trial is not dead."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT):
                try:
                    self._beat(claim.trial)
                except StorageInternalError as error:  # the next one may pass; the trial itself will say it
                    log.debug("no heartbeat: %s", error)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the other workers, and keep them waiting."""
        with patiently(self.folder), self._turn():
            yield

    def folder_of(self, trial: FrozenTrial | Trial) -> Path | None:
        """Return the run folder of a trial, None where it is not on this machine; the tune folder may have moved."""
        if "folder" not in trial.user_attrs:
            return None
        recorded = Path(trial.user_attrs["folder"])
        places = (self.folder / recorded.name, recorded)
        return next((path for path in places if path.is_dir() and self._bears(path.parent)), None)

    # -- inside

    def _take_folder(self) -> None:
        """Let the tune folder bear the id of the study, or refuse one that bears another's, with its results."""
        if _ID not in self.study.user_attrs:
            self.study.set_user_attr(_ID, secrets.token_hex(8))
        self._mark: str = self.study.user_attrs[_ID]
        file = self.folder / _ID_FILE
        if not file.exists():
            write_text(file, self._mark)
        elif not self._bears(self.folder):
            raise ConfigError(
                f"{self.folder}: holds the results of another study, of another database; go on with that one "
                "(optuna.storage), or begin a study beside it: --optuna.study_name NAME"
            )

    def _bears(self, folder: Path) -> bool:
        file = folder / _ID_FILE
        return file.is_file() and file.read_text(encoding="utf-8") == self._mark

    def _place_for(self, trial: Trial) -> tuple[Path, FileLock]:
        """A trial that was killed goes on where it lay, if that is here and nobody, woken up, is still there."""
        former = self.folder_of(trial)
        if former is not None:
            try:
                return former, hold(former)
            except ConfigError:
                log.info("trial %d begins anew: %s is in use", trial.number, former)
        folder = self.folder / f"trial_{trial.number:04d}"
        folder.mkdir(exist_ok=True)
        return folder, hold(folder)

    def _beat(self, trial: Trial) -> None:
        self.storage.record_heartbeat(self.storage.get_trial_id_from_study_id_trial_number(self._id, trial.number))

    def _bury_dead(self) -> None:
        fail_stale_trials(self.study)  # of other machines; puts them back into the queue, too
        for trial in self.trials:
            if trial.state == TrialState.RUNNING and _is_dead(trial):
                log.warning("trial %d was killed; it is repeated with the same parameters", trial.number)
                self.study.tell(trial.number, state=TrialState.FAIL)
                _requeue(self.study, trial)

    def _recorded_seed(self, drawn: Any) -> Any:
        """Return the seed with which the study was begun; of a new one, the seed that was drawn."""
        seed = self.study.user_attrs.get(_CONFIGURATION, {}).get(_SEED, drawn)
        if seed != drawn:
            log.info("%s: %s, drawn when the study began", _SEED, seed)
        return seed

    def _keep_to(self, configuration: dict[str, Any]) -> None:
        """Record the configuration, or refuse another than the recorded: values would not compare."""
        ours = _kept(leaves(json.loads(json.dumps(configuration, default=vars))))
        recorded = self.study.user_attrs.get(_CONFIGURATION)
        if recorded is None:
            self.study.set_user_attr(_CONFIGURATION, ours)
            return
        theirs = _kept(recorded)
        for key in {"model.class_path", "data.class_path"} & theirs.keys():  # of a study that an older version began
            theirs[key] = public_class(theirs[key])
        changed = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        if changed:
            key = changed[0]
            more = f" (and {', '.join(changed[1:4])})" if changed[1:] else ""
            raise ConfigError(
                f"{key}: {ours.get(key, 'left out')}, but the study {self.study.study_name!r} was begun with "
                f"{theirs.get(key, 'none')}"
                f"{more}; restore it, or begin another: --optuna.study_name NAME"
            )


def _requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Let a trial that was killed or interrupted be run again, with its parameters and what it has reported."""
    was_killed = REASON not in trial.user_attrs
    kills = trial.user_attrs.get(_KILLS, 0) + was_killed
    if kills >= _MOST_KILLS:
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


def loss_of(trial: FrozenTrial) -> float:
    """Return the validation loss of a trial's best epoch; infinite where an older version did not record it."""
    return float(trial.user_attrs.get(LOSS, math.inf))


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of n_trials; one that was killed or interrupted is not, for it is repeated."""
    if trial.state != TrialState.FAIL:
        return trial.state != TrialState.WAITING
    if REASON in trial.user_attrs:
        return bool(trial.user_attrs[REASON] != INTERRUPTED)
    return bool(trial.user_attrs.get(_KILLS, 0) + 1 >= _MOST_KILLS)


def _is_dead(trial: FrozenTrial) -> bool:
    """Whether no process runs a running trial; only the heartbeat tells it of another machine's."""
    if "folder" not in trial.user_attrs:
        return True  # killed within its claim, which we would have waited for
    folder = Path(trial.user_attrs["folder"])
    if trial.user_attrs["host"] != socket.gethostname() or not folder.is_dir():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return True
    except Timeout:
        return False


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    """Return what must stay the same when a search goes on."""
    return {key: value for key, value in values.items() if not any(f"{key}.".startswith(f"{free}.") for free in _FREE)}
