"""What the configurations of runs differ in, and which runs are seeds of one configuration."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from imgcls.errors import ConfigError
from imgcls.results.run import Run

SEED = "seed_everything"
_OF_A_RUN = (  # keys that do not change what a run trains; a fit does not read the section optuna
    SEED,
    "ckpt_path",
    "data.cache_dir",
    "data.cache_size",
    "data.create_dataset",  # of auto, what was decided is recorded
    "data.dataset_classes.predict",
    "data.dataset_classes.test",  # the images of the comparison, which it counts
    "data.num_workers",
    "data.timeout",
    "experiment.custom_folder_name",
    "experiment.output_dir",
    "experiment.report",
    "optuna",
    "trainer.default_root_dir",
    "trainer.logger",
)
NOT_SET = "not set"


class Setting(NamedTuple):
    """A key whose value differs.

    Args:
        key: The dotted key, without ``init_args``.
        values: Its value in each configuration, as JSON, or the default in use as text.
    """

    key: str
    values: list[str]


def settings(run: Run) -> dict[str, str]:
    """Return dotted key -> value as JSON, of all that determines what a run trains, but its seed."""
    return {key: json.dumps(value, sort_keys=True, default=str) for key, value in _leaves(run.config).items()}


def differences(runs: Sequence[Run]) -> list[Setting]:
    """Return the keys whose values are not the same in all runs, with the defaults in use if all runs record them."""
    configurations = [settings(run) for run in runs]
    defaults = [run.of_fit.get("run", {}).get("defaults") for run in runs]
    if None not in defaults:
        for known, used in zip(configurations, defaults, strict=True):
            known |= {key: f"{value:g} (default)" for key, value in used.items() if known.get(key) == "null"}
    keys = dict.fromkeys(key for each in configurations for key in each)
    rows = [Setting(key, [each.get(key, NOT_SET) for each in configurations]) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def grouped(runs: Sequence[Run]) -> list[list[int]]:
    """Return the indices of the runs of each configuration; each run alone if all have the same one.

    Raises:
        ConfigError: If two runs of a configuration, beside others, have the same seed: they are no two seeds.
    """
    found: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        known = settings(run)
        found.setdefault(json.dumps(known, sort_keys=True) if known else str(index), []).append(index)
    groups = list(found.values())
    if len(groups) == 1:
        return [[index] for index in groups[0]]
    for group in groups:
        seeds: dict[str, Run] = {}
        for run in (runs[index] for index in group):
            seed = str(run.config.get(SEED))
            if seed in seeds:
                raise ConfigError(
                    f"{seeds[seed].folder} and {run.folder} have the same configuration and the same {SEED}, {seed}; "
                    "leave one of them out"
                )
            seeds[seed] = run
    return groups


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix if name == "init_args" else f"{prefix}.{name}" if prefix else str(name)
        if key.startswith(_OF_A_RUN) and any(key == each or key.startswith(f"{each}.") for each in _OF_A_RUN):
            continue
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, key)
        else:
            found[key] = value
    return found
