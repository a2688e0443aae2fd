"""The configuration recorded in a study: a resumed search must not change what its values depend on."""

import json
import logging
from typing import Any

import optuna

from imgcls.config.overrides import leaves
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

SEED = "seed_everything"
_CONFIGURATION = "configuration"  # user attribute of the study: dotted key -> value
# keys that may change, with all keys below them, because no value of a trial depends on them
_MAY_CHANGE = (
    *(f"optuna.{key}" for key in ("n_trials", "timeout", "n_jobs", "tune", "keep_checkpoints", "retrain", "storage")),
    "experiment.output_dir",
    *(f"data.init_args.{key}" for key in ("num_workers", "cache_dir", "timeout")),
    *(f"data.init_args.dataset_classes.{split}" for split in ("test", "predict")),
    *(f"trainer.{key}" for key in ("limit_test_batches", "limit_predict_batches", "log_every_n_steps", "profiler")),
    *(f"trainer.{key}" for key in ("logger", "enable_model_summary", "enable_progress_bar", "accelerator", "devices")),
)


def recorded_seed(study: optuna.Study, drawn: Any) -> Any:
    """Return the seed that a study was started with; of a new study, the drawn one."""
    seed = study.user_attrs.get(_CONFIGURATION, {}).get(SEED, drawn)
    if seed != drawn:
        log.info("%s: %s, drawn when the study started", SEED, seed)
    return seed


def check_configuration(study: optuna.Study, configuration: dict[str, Any]) -> None:
    """Record the configuration in a new study; compare it with that of an existing one.

    Raises:
        ConfigError: If a key differs on which values of trials depend.
    """
    ours = _fixed(leaves(json.loads(json.dumps(configuration, default=vars))))
    recorded = study.user_attrs.get(_CONFIGURATION)
    if recorded is None:
        study.set_user_attr(_CONFIGURATION, ours)
        return
    theirs = _fixed(recorded)
    changed = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    if changed:
        key = changed[0]
        more = f" (also changed: {', '.join(changed[1:4])})" if changed[1:] else ""
        raise ConfigError(
            f"{key} is {ours.get(key, 'not set')}, but the study {study.study_name!r} was started with "
            f"{theirs.get(key, 'none')}{more}; restore it or start a new study: --optuna.study_name NAME"
        )


def _fixed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that must not change."""
    return {key: value for key, value in values.items() if not any(f"{key}.".startswith(f"{k}.") for k in _MAY_CHANGE)}
