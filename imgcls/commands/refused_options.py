"""Refuse Trainer options, callbacks, strategies and plugins that would give a wrong result or lose data."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.plugins import CheckpointIO

from imgcls.callbacks.ema import RAW_WEIGHTS, saves_raw_weights
from imgcls.checkpoints.run_folder import BEST, LAST
from imgcls.commands.trainer import LIGHTNING_ERRORS, SILENT, as_list
from imgcls.errors import ConfigError, first_line

Options = dict[str, Any]  # the Trainer's arguments, callbacks made
Finds = Callable[[Any, Options], Sequence[object]]


class Refused(NamedTuple):
    """One refusal.

    Args:
        key: The option below ``trainer``.
        finds: Given its value and all options, returns what is refused; empty if nothing is.
        why: The message after the key; ``{}`` is what was found first.
        instead: What to type instead; may be empty.
        commands: The commands that refuse it.
    """

    key: str
    finds: Finds
    why: str
    instead: str = ""
    commands: str = "fit validate test predict"


def _below(lowest: float) -> Finds:
    return lambda value, _: [value] if value is not None and value < lowest else []


def _zero(value: Any, _: Options) -> Sequence[object]:
    return [value] if value == 0 and not isinstance(value, bool) else []


def _matching(pattern: str) -> Finds:
    """Find a strategy by its name, or by the name of its class."""

    def finds(value: Any, _: Options) -> Sequence[object]:
        name = value if isinstance(value, str) else type(value).__name__
        return [name] if re.search(pattern, name, re.IGNORECASE) else []

    return finds


def _containing(*kinds: type) -> Finds:
    return lambda value, _: [type(item).__name__ for item in as_list(value) if isinstance(item, kinds)]


def _beside_max_steps(value: Any, options: Options) -> Sequence[object]:
    return [f"{value} and trainer.max_steps: {options['max_steps']}"] if value and options["max_steps"] != -1 else []


def _beside_timer(value: Any, options: Options) -> Sequence[object]:
    return _containing(Timer)(options["callbacks"], options) if value is not None else []


def _cuts(value: Any, _: Options) -> Sequence[object]:
    """Find a limit below all batches; 1 is one batch, 1.0 all of them."""
    return [value] if value is not None and (isinstance(value, int) or value != 1) else []


def _reserved(value: Any, _: Options) -> Sequence[object]:
    """Find savers that would write best.ckpt or last.ckpt of the run folder."""
    savers = [item for item in as_list(value) if isinstance(item, ModelCheckpoint) and item.dirpath is None]
    names = [f"filename: {item.filename}" for item in savers if f"{item.filename}.ckpt" in {BEST, LAST}]
    return names + [f"save_last: {item.save_last}" for item in savers if item.save_last]


REFUSED = (
    # nothing to do: the weights of the start would be evaluated as if they were trained
    Refused("max_epochs", _zero, " must be above 0, got {}", commands="fit"),
    Refused("max_steps", _zero, " must be above 0, got {}", commands="fit"),
    Refused("limit_train_batches", _zero, " must be above 0, got {}", commands="fit"),
    Refused("limit_val_batches", _zero, " must be above 0, got {}", commands="validate"),
    Refused("limit_test_batches", _zero, " must be above 0, got {}", commands="test"),
    # predict writes a row for each image
    Refused("limit_predict_batches", _cuts, ": {} would leave images without a prediction", "leave it out", "predict"),
    Refused(
        "fast_dev_run",
        lambda value, _: [value] if value else [],
        ": {} would leave images without a prediction",
        "leave it out",
        "predict",
    ),
    # Lightning 2.6 divides by these, or reverses the gradients
    Refused("accumulate_grad_batches", _below(1), " must be at least 1, got {}", commands="fit"),
    Refused("check_val_every_n_epoch", _below(1), " must be at least 1, got {}", commands="fit"),
    Refused("gradient_clip_val", _below(0), " must be at least 0, got {}", commands="fit"),
    Refused(
        "val_check_interval",
        lambda value, _: [value] if isinstance(value, (int, float)) and value <= 0 else [],
        " must be above 0, got {}",
        commands="fit",
    ),
    # without effect
    Refused(
        "default_root_dir",
        lambda value, _: as_list(value),
        ": {} has no effect",
        "set experiment.output_dir",
        "fit",
    ),
    Refused("max_time", _beside_timer, " has no effect beside {} in trainer.callbacks", "leave out one of them"),
    # options that contradict each other
    Refused("min_epochs", _beside_max_steps, ": {} contradict each other", "leave out one of them"),
    Refused("min_steps", _beside_max_steps, ": {} contradict each other", "leave out one of them"),
    # callbacks
    Refused(
        "callbacks",
        _containing(BackboneFinetuning),
        ": {} would freeze the new head with the encoder",
        "use model.init_args.freeze_encoder and unfreeze",
    ),
    Refused(
        "callbacks",
        _containing(GradientAccumulationScheduler),
        ": {} changes the number of steps, which the learning-rate schedule cannot know",
        "use trainer.accumulate_grad_batches",
    ),
    Refused(
        "callbacks",
        _containing(ModelPruning),
        ": {} prunes after the validation, so the saved weights would not be those that were validated",
        "leave it out",
    ),
    Refused(
        "callbacks",
        _containing(StochasticWeightAveraging),
        ": {} averages after the last checkpoint is saved, so best.ckpt would not hold the average",
        "use imgcls.EMA",
    ),
    Refused("callbacks", lambda value, _: saves_raw_weights(as_list(value)), f": {RAW_WEIGHTS}"),
    Refused(
        "callbacks",
        _reserved,
        f": ModelCheckpoint: {{}} would overwrite the run's own {BEST} or {LAST}",
        "use another filename, and leave out save_last",
    ),
    # strategies and plugins
    Refused(
        "strategy",
        _matching("fsdp|deepspeed|model_?parallel"),
        ": {} shards the weights, which checkpoints hold whole",
        "use ddp",
    ),
    Refused(
        "strategy",
        _matching("spawn|fork|notebook"),
        ": {} leaves the trained weights in processes that end",
        "use ddp",
    ),
    Refused(
        "plugins",
        _containing(CheckpointIO),
        ": {} would replace the writer of checkpoints, and they could not be read back",
        "leave it out",
    ),
)


def check_options(options: Options, command: str) -> None:
    """Refuse options that cannot run, before data and model are read.

    Raises:
        ConfigError: Names the option, what was found, and what to type instead.
    """
    for key, finds, why, instead, commands in REFUSED:
        if command in commands.split() and (found := finds(options[key], options)):
            raise ConfigError("; ".join(filter(None, [f"trainer.{key}{why.format(found[0])}", instead])))
    with warnings.catch_warnings(action="ignore"):  # repeated when the real Trainer is built
        _try_devices(options)
        _try_values(options)


def _try_devices(options: Options) -> None:
    asked = {key: options[key] for key in ("accelerator", "devices", "num_nodes")}
    try:
        Trainer(**asked, **SILENT)
    except LIGHTNING_ERRORS as error:
        if str(error).startswith("No supported gpu backend"):
            raise ConfigError(
                f"no GPU found (trainer.accelerator: {asked['accelerator']}); to run on what this machine has: "
                "--trainer.accelerator auto --trainer.devices auto"
            ) from error
        raise ConfigError(
            f"trainer: {first_line(error)} (accelerator: {asked['accelerator']}, devices: {asked['devices']}); "
            "--trainer.accelerator auto --trainer.devices auto uses what this machine has"
        ) from error


def _try_values(options: Options) -> None:
    """Let Lightning check the plain arguments and callbacks before a run folder is made."""
    values: Options = {key: value for key, value in options.items() if isinstance(value, (bool, int, float, str))}
    # one of each class, since several MetricsLoggers are joined later
    callbacks = list({type(callback): callback for callback in as_list(options["callbacks"])}.values())
    try:
        Trainer(**values | {"devices": options["devices"], "callbacks": callbacks, "logger": False})
    except LIGHTNING_ERRORS as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error
