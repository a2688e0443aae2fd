"""The sections ``experiment`` and ``optuna``, and what all sections have in common.

Sections are pydantic dataclasses: the range of a value is part of its type, and ``ValidationError.title`` is the key of
the section. jsonargparse sees the types without the ranges.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from imgcls.errors import join_keys

DIVIDING = ("validation_split", "split_seed", "fold", "group_column", "group_regex", "content_hash")
"""Keys of the data that determine how validation is split off from train."""

Direction = Literal["maximize", "minimize"]


def section(name: str, parent: str = "") -> ConfigDict:
    """Return the pydantic configuration of a section: errors name its key; NaN and infinity are refused."""
    return ConfigDict(title=join_keys(parent, name), allow_inf_nan=False)


def check_owners(values: Mapping[str, Any], key: str, owners: Mapping[str, set[str]]) -> None:
    """Refuse a parameter of a section that the chosen ``name`` does not have; owners: parameter -> names that have it.

    Raises:
        ValueError: Names the key and the names.
    """
    for parameter, names in owners.items():
        if values[parameter] is not None and values["name"] not in names:
            raise ValueError(
                f"{key}.{parameter} applies only to {' and '.join(sorted(names))}, not to {values['name']!r}"
            )


@dataclass(config=section("experiment"))
class ExperimentConfig:
    """Where a run is stored and how it starts from a checkpoint.

    Args:
        custom_folder_name: Runs are stored in ``<output_dir>/<custom_folder_name>/version_N``; null makes a name from
            model and data.
        output_dir: The folder of all runs.
        only_weights_load: With ``ckpt_path``: load only the weights, those of the head by class name; optimizer,
            schedule and epoch start fresh.
        monitor: The logged value that selects the best epoch; null: that of the first checkpoint callback, else
            validation_f1_score, else the first metric. Ties are broken by the lower validation_loss.
        patience: Epochs without a better value of ``monitor`` after which training stops early; null: never. An
            EarlyStopping in ``trainer.callbacks`` has its own.
        default_callbacks: Append a checkpoint saver, metrics logger, progress bar, early stopping and a moving average
            of the weights unless the configuration lists one of the kind.
        calibrate: At the end of a fit, divide the logits of best.ckpt by a temperature that is fitted on validation,
            where that improves the log loss, so that probabilities match how often they are right.
        report: At the end of fit, validate and test, write report.html, with thumbnails and image properties.
        save_every_minutes: Minutes between two updates of last.ckpt within an epoch; null or 0: only at the end of each
            epoch, and on Ctrl-C or SIGTERM.
    """

    custom_folder_name: str | None = None
    output_dir: str = "runs"
    only_weights_load: bool = False
    monitor: str | None = None
    patience: Annotated[int | None, Field(ge=1)] = 10
    default_callbacks: bool = True
    calibrate: bool = True
    report: bool = True
    save_every_minutes: Annotated[float | None, Field(ge=0)] = 10.0


@dataclass
class SearchSpace:
    """The values of one key in a search.

    Args:
        distribution: How values are drawn; ``float`` is an alias of ``uniform``.
        low: Lowest number.
        high: Highest number, inclusive.
        step: Distance between numbers; not with ``log``.
        log: Draw on a logarithmic scale, as ``loguniform`` always does.
        choices: The values of ``categorical``: strings, numbers, lists, or ``{class_path, init_args}``.
    """

    distribution: Literal["uniform", "float", "loguniform", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: list[Any] | None = None


@dataclass(config=section("fidelity", "optuna"))
class Fidelity:
    """A cheap screening fit before each trial; only the best share of the trials is then trained in full.

    Args:
        epochs: Epochs of the screening fit; null: as many as the full fit.
        data: Fraction of the training batches in the screening fit, 0 to 1.
        keep: Fraction of the screened trials that are trained in full, 0 to 1.
    """

    epochs: Annotated[int | None, Field(ge=1)] = None
    data: Annotated[float, Field(gt=0, le=1)] = 1.0
    keep: Annotated[float, Field(gt=0, le=1)] = 1 / 3

    def __post_init__(self) -> None:
        """Refuse a screening fit that is as long as the full one."""
        if self.epochs is None and self.data == 1:
            raise ValueError("optuna.fidelity.data must be less than 1 unless optuna.fidelity.epochs is set, got 1.0")


@dataclass(config=section("optuna"))
class OptunaConfig:
    """A hyper-parameter search over dotted keys of this configuration, for ``imgcls tune``.

    Args:
        tune: false refuses ``imgcls tune``.
        n_trials: Total number of trials; running the command again continues up to this number.
        direction: Whether higher or lower values are better; null: as the metric defines it. A list for several
            metrics.
        metric: The logged value to optimise, at its best epoch; a list of several gives their Pareto front.
        search_spaces: Dotted key -> its search space.
        sampler: Optuna's sampler.
        pruner: Optuna's pruner.
        timeout: Seconds after which no new trial starts.
        storage: Database URL, for workers on several machines; null: study.db in the tune folder.
        study_name: Name of the study in the database and of the tune folder; null: name of the runs.
        seed: Seed of the sampler.
        n_jobs: Number of parallel processes on this machine.
        fidelity: A cheap screening fit before each trial; null: none.
        keep_checkpoints: Keep the checkpoints of all trials instead of only the best.
        retrain: Finally fit the best configuration on train + validation, for as many epochs as its best epoch took.
    """

    tune: bool | None = None
    n_trials: Annotated[int, Field(ge=1)] = 20
    direction: Direction | list[Direction] | None = None
    metric: str | list[str] = "validation_f1_score"
    search_spaces: dict[str, SearchSpace] = field(default_factory=dict)
    sampler: Literal["tpe", "random", "grid", "gp", "qmc", "nsga2", "nsga3"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    timeout: Annotated[float | None, Field(gt=0)] = None
    storage: str | None = None
    study_name: Annotated[str | None, Field(pattern=r"^[\w.-]+$")] = None
    seed: Annotated[int, Field(ge=0)] = 0
    n_jobs: Annotated[int, Field(ge=1)] = 1
    fidelity: Fidelity | None = None
    keep_checkpoints: bool = False
    retrain: bool = False
