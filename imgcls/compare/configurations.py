"""What the configurations of runs differ in, and which runs are seeds of one configuration."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from imgcls.config.overrides import leaves
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
    """A key whose value differs."""

    key: str  # dotted, without init_args
    values: list[str]  # of each configuration, as JSON, or the default in use as text


def settings(run: Run) -> dict[str, str]:
    """Return dotted key -> value as JSON, of all that determines what a run trains, but its seed."""
    of_a_run = tuple(f"{key}." for key in _OF_A_RUN)
    found = {}
    for full_key, value in leaves(run.config).items():
        key = ".".join(part for part in full_key.split(".") if part != "init_args")
        if not f"{key}.".startswith(of_a_run):
            found[key] = json.dumps(value, sort_keys=True, default=str)
    return found


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
