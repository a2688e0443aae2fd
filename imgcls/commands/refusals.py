"""Refuse Trainer options, callbacks, strategies and plugins before data and model are read."""

import re
import warnings
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BaseFinetuning, GradientAccumulationScheduler, ModelPruning, Timer
from lightning.pytorch.plugins import CheckpointIO

from imgcls.commands.trainer import FLAGS, LIGHTNING_ERRORS, as_list
from imgcls.errors import ConfigError, first_line

_NEEDED = {  # command -> what must not be 0
    "fit": ("max_epochs", "max_steps", "limit_train_batches"),
    "validate": ("limit_val_batches",),
    "test": ("limit_test_batches",),
    "predict": ("limit_predict_batches",),
}
_LEAST = ("min_epochs", "min_steps")
_LOWEST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0}
_SILENT: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
_INSTEAD: dict[type, str] = {  # callback -> why not, and what to take
    BaseFinetuning: "would freeze the new head with the encoder; take model.init_args.freeze_encoder and unfreeze",
    GradientAccumulationScheduler: (
        "changes the number of steps, which the schedule of the learning rate would not know; take "
        "trainer.accumulate_grad_batches"
    ),
    ModelPruning: "prunes behind the validation, so that what is saved is not what was validated; leave it out",
}
_STRATEGIES = {  # names -> why not
    "fsdp|deepspeed|model_parallel": "divides the weights, which are averaged and saved whole",
    "spawn|fork|notebook": "leaves what is learnt in processes that end",
}


def check_options(options: dict[str, Any], command: str) -> None:
    """Refuse what cannot run, before any image or model is looked at.

    Args:
        options: The Trainer's arguments, callbacks made.
        command: The command that they are for.

    Raises:
        ConfigError: Says what was asked for, and what would be right.
    """
    for key in _NEEDED[command]:
        if options[key] == 0:
            raise ConfigError(f"trainer.{key}: 0 leaves nothing to do; it must be above 0")
    if command == "fit":
        _check_numbers(options)
    if command == "predict":
        _check_whole(options)
    for flag, kind in FLAGS.items():
        listed = [type(item).__name__ for item in as_list(options["callbacks"]) if isinstance(item, kind)]
        if options[flag] is False and listed:
            raise ConfigError(f"trainer.{flag}: false, but trainer.callbacks lists {listed[0]}; leave out one of them")
    for callback in as_list(options["callbacks"]):
        if why := next((why for kind, why in _INSTEAD.items() if isinstance(callback, kind)), None):
            raise ConfigError(f"trainer.callbacks: {type(callback).__name__} {why}")
    if options["max_time"] is not None and any(isinstance(item, Timer) for item in as_list(options["callbacks"])):
        raise ConfigError("trainer.max_time does nothing beside a Timer in trainer.callbacks; leave out one of them")
    _refuse_kinds(options)
    with warnings.catch_warnings(action="ignore"):  # given again when the real Trainer is built
        _check_devices(options)
        _check_values(options)


def _check_numbers(options: dict[str, Any]) -> None:
    """Refuse numbers that Lightning divides by, or takes for something else."""
    for key, lowest in _LOWEST.items():
        if options[key] is not None and options[key] < lowest:
            raise ConfigError(f"trainer.{key}: {options[key]}; it must be at least {lowest}")
    interval = options["val_check_interval"]
    if isinstance(interval, (int, float)) and interval <= 0:
        raise ConfigError(f"trainer.val_check_interval: {interval}; it must be above 0")
    if options["default_root_dir"] is not None:
        raise ConfigError(
            f"trainer.default_root_dir: {options['default_root_dir']}, but where runs lie says experiment.output_dir; "
            "leave it out"
        )


def _check_whole(options: dict[str, Any]) -> None:
    """Refuse to leave images without a row."""
    limit = options["limit_predict_batches"]
    cut = {"limit_predict_batches": limit is not None and (isinstance(limit, int) or limit != 1)}
    for key in [key for key, is_cut in (cut | {"fast_dev_run": bool(options["fast_dev_run"])}).items() if is_cut]:
        raise ConfigError(f"trainer.{key}: {options[key]}, but predict writes a row for each image; leave it out")


def _refuse_kinds(options: dict[str, Any]) -> None:
    """Refuse strategies, plugins and limits that Lightning takes, and a run of imgcls cannot."""
    for kinds, why in _STRATEGIES.items():
        if re.search(kinds, str(options["strategy"])):
            raise ConfigError(f"trainer.strategy: {options['strategy']} {why}; take ddp")
    writers = [type(plugin).__name__ for plugin in as_list(options["plugins"]) if isinstance(plugin, CheckpointIO)]
    if writers:
        raise ConfigError(f"trainer.plugins: {writers[0]} would write checkpoints in its own way; leave it out")
    least = [key for key in _LEAST if options[key]]
    if least and options["max_steps"] != -1:
        raise ConfigError(
            f"trainer.{least[0]}: {options[least[0]]}, but max_steps: {options['max_steps']} is the end; give one"
        )


def _check_devices(options: dict[str, Any]) -> None:
    asked = {key: options[key] for key in ("accelerator", "devices", "num_nodes")}
    try:
        Trainer(**asked, **_SILENT)
    except LIGHTNING_ERRORS as error:
        raise ConfigError(
            f"trainer: {first_line(error)} (accelerator: {asked['accelerator']}, devices: {asked['devices']}); "
            "accelerator: auto and devices: auto take what this machine has"
        ) from error


def _check_values(options: dict[str, Any]) -> None:
    """Try the plain arguments, so that a wrong one is refused before a run folder is made."""
    values = {key: value for key, value in options.items() if isinstance(value, (bool, int, float, str))}
    try:
        Trainer(**values | {"devices": options["devices"]} | _SILENT)
    except LIGHTNING_ERRORS as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error
