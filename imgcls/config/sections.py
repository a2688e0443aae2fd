"""The sections of the YAML that are neither model, data nor trainer."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from imgcls.errors import ConfigError

DIVIDING = ("validation_split", "split_seed", "fold", "group_column", "group_regex", "content_hash")
"""Keys of the data by which validation is held out of train."""

Direction = Literal["maximize", "minimize"]


@dataclass
class ExperimentConfig:
    """Where a run is kept, and how it starts from a checkpoint.

    Args:
        custom_folder_name: Runs go to ``<output_dir>/<custom_folder_name>/version_N``; null makes a name from model and
            data.
        output_dir: The folder of all runs.
        only_weights_load: With ``ckpt_path``: load the weights alone, those of the head by the names of the classes;
            optimizer, schedule and epoch start fresh.
        monitor: The logged value that decides which epoch is best; null: that of the first checkpoint saver among the
            callbacks, else validation_f1_score, else the first metric. Among equal values the lower validation_loss
            wins.
        default_callbacks: Append a checkpoint saver, metrics logger, progress bar, early stopping and a moving average
            of the weights where the configuration names none of the kind.
        save_every_minutes: Minutes after which last.ckpt is written within an epoch, too; null or 0: at the end of each
            epoch, and where Ctrl-C or SIGTERM ends the run.
    """

    custom_folder_name: str | None = None
    output_dir: str = "runs"
    only_weights_load: bool = False
    monitor: str | None = None
    default_callbacks: bool = True
    save_every_minutes: float | None = 10.0

    def __post_init__(self) -> None:
        """Refuse a time that is none."""
        if self.save_every_minutes is not None and not self.save_every_minutes >= 0:
            raise ConfigError(
                f"experiment.save_every_minutes: {self.save_every_minutes}; it must be at least 0, and null is never"
            )


@dataclass
class SearchSpace:
    """The values that one key may take in a search.

    Args:
        distribution: How values are drawn; ``float`` is another name of ``uniform``.
        low: Lowest value, of numbers.
        high: Highest value, of numbers, included.
        step: Distance between values, of numbers; not with ``log``.
        log: Draw on a logarithmic scale; ``loguniform`` does so always.
        choices: The values, of ``categorical``; texts, numbers, lists, or whole ``{class_path, init_args}``.
    """

    distribution: Literal["uniform", "float", "loguniform", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: list[Any] | None = None


@dataclass
class Fidelity:
    """A cheap screen: each trial is first trained a little, and in full only if it is among the best.

    Args:
        epochs: Epochs of the screen; null: as many as the full fit has.
        data: Share of the training batches in the screen, 0 to 1.
        keep: Share of the screened trials that go on, 0 to 1.
    """

    epochs: int | None = None
    data: float = 1.0
    keep: float = 1 / 3

    def __post_init__(self) -> None:
        """Refuse what is no screen."""
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"optuna.fidelity.epochs: {self.epochs}; it must be at least 1")
        if not 0 < self.data <= 1 or (self.epochs is None and self.data == 1):
            raise ConfigError(f"optuna.fidelity.data: {self.data}; give a share between 0 and 1, or 'epochs'")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"optuna.fidelity.keep: {self.keep}; it must lie above 0, and at most at 1")


@dataclass
class OptunaConfig:
    """A search over dotted keys of this configuration, for ``imgcls tune``.

    Args:
        tune: false refuses ``imgcls tune``.
        n_trials: Number of trials in all: the command, started again, goes on to this number.
        direction: Whether a high or a low metric is better; null: as the metric has it. A list for several metrics.
        metric: The logged value to optimise, at its best epoch; a list of several gives their Pareto front.
        search_spaces: Dotted key -> the values that it may take.
        sampler: How values are chosen, by Optuna.
        pruner: How bad trials are ended early, by Optuna.
        timeout: Seconds after which no new trial begins.
        storage: URL of a database, for workers on several machines; null: study.db in the tune folder.
        study_name: Name of the study in the database; null: that of the runs. Given, it also names the tune folder.
        seed: Seed of the search.
        n_jobs: Processes that search at the same time on this machine.
        fidelity: A cheap screen in front of each trial; null: none.
        keep_checkpoints: Keep the checkpoints of all trials, not only those of the best.
        retrain: At the end, fit the best once more on train + validation, for as many epochs as its best took.
    """

    tune: bool | None = None
    n_trials: int = 20
    direction: Direction | list[Direction] | None = None
    metric: str | list[str] = "validation_f1_score"
    search_spaces: dict[str, SearchSpace] = field(default_factory=dict)
    sampler: Literal["tpe", "random", "grid", "gp", "qmc", "nsga2", "nsga3"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    timeout: float | None = None
    storage: str | None = None
    study_name: str | None = None
    seed: int = 0
    n_jobs: int = 1
    fidelity: Fidelity | None = None
    keep_checkpoints: bool = False
    retrain: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for key in ("n_trials", "n_jobs"):
            if getattr(self, key) < 1:
                raise ConfigError(f"optuna.{key}: {getattr(self, key)}; it must be at least 1")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(f"optuna.timeout: {self.timeout}; it must be above 0 seconds")
        if self.seed < 0:
            raise ConfigError(f"optuna.seed: {self.seed}; it must not be negative")
        if self.study_name is not None and not re.fullmatch(r"[\w.-]+", self.study_name):
            raise ConfigError(f"optuna.study_name: {self.study_name!r}; letters, digits, '-', '_' and '.' make a name")
