"""The sections of the YAML that are neither model, data nor trainer."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class ExperimentConfig:
    """Where a run is kept, and how it starts from a checkpoint.

    Args:
        custom_folder_name: Runs go to ``<output_dir>/<custom_folder_name>/version_N``; null makes a name from model and
            data.
        output_dir: The folder of all runs.
        only_weights_load: With ``ckpt_path``: load the weights alone; optimizer, schedule and epoch start fresh.
        default_callbacks: Append a checkpoint saver, metrics logger, progress bar and early stopping where the
            configuration names none of the kind.
    """

    custom_folder_name: str | None = None
    output_dir: str = "runs"
    only_weights_load: bool = False
    default_callbacks: bool = True


@dataclass
class SearchSpace:
    """The values that one key may take in a search.

    Args:
        distribution: How values are drawn.
        low: Lowest value, of numbers.
        high: Highest value, of numbers.
        step: Distance between values, of numbers.
        log: Draw on a logarithmic scale.
        choices: The values, of ``categorical``.
    """

    distribution: Literal["uniform", "loguniform", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: list[Any] | None = None


@dataclass
class OptunaConfig:
    """A search over dotted keys of this configuration.

    Args:
        tune: Whether the search is wanted.
        n_trials: Number of trials in all.
        direction: Whether a high or a low metric is better.
        metric: The logged metric to optimise.
        search_spaces: Dotted key -> the values that it may take.
    """

    tune: bool = False
    n_trials: int = 20
    direction: Literal["maximize", "minimize"] = "maximize"
    metric: str = "validation_f1_score"
    search_spaces: dict[str, SearchSpace] = field(default_factory=dict)
