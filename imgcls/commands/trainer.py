"""Lightning's Trainer with what imgcls chooses where the configuration leaves it open."""

import inspect
import logging
import re
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    Callback,
    Checkpoint,
    GradientAccumulationScheduler,
    ModelPruning,
    ProgressBar,
    Timer,
)
from lightning.pytorch.plugins import CheckpointIO, Precision
from lightning.pytorch.utilities import rank_zero_only

from imgcls.callbacks.stopping import StepLimit
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.commands.run_logger import RunLogger
from imgcls.errors import ConfigError, first_line

log = logging.getLogger(__name__)

TRAINER_DEFAULTS = {"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False}

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
_TENSOR_CORES = (7, 0)  # the first compute capability that has them
_REFUSALS = (MisconfigurationException, ValueError, TypeError)
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
_FLAGS: dict[str, type] = {"enable_checkpointing": Checkpoint, "enable_progress_bar": ProgressBar}


class ImgclsTrainer(Trainer):
    """Lightning's Trainer, with a method for each command: the parser takes the options from there."""

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Steps of the whole run, by epochs and by :class:`StepLimit`."""
        limits = [item.max_steps for item in self.callbacks if isinstance(item, StepLimit)]  # type: ignore[attr-defined]
        return min([super().estimated_stepping_batches, *limits])

    def tune(
        self,
        model: LightningModule | None = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Search over keys of the configuration with Optuna.

        Args:
            model: The model.
            datamodule: The data.
            ckpt_path: Must be null.
        """
        raise NotImplementedError("the search is a command of its own: imgcls tune")

    def check(
        self,
        model: LightningModule | None = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Look at the data.

        Args:
            model: The model; never built.
            datamodule: The data.
            ckpt_path: Not read.
        """
        raise NotImplementedError("the look at the data is a command of its own: imgcls check")


# 1 is one batch, 1.0 all of them; but typing remembers unions whatever their order: where a module that was imported
# before has Optional[Union[float, int]], Lightning gets that, too, and 1 would be read as 1.0
inspect.unwrap(Trainer.__init__).__annotations__.update(
    {f"limit_{stage}_batches": int | float | None for stage in ("train", "val", "test", "predict")}
    | {"overfit_batches": int | float, "val_check_interval": int | float | str | timedelta | dict[str, int] | None}
)


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes, as the launcher's environment says."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def as_list(value: Any) -> list[Any]:
    """Return what an argument of the Trainer holds: nothing, one object or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


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
    for flag, kind in _FLAGS.items():
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
    except _REFUSALS as error:
        raise ConfigError(
            f"trainer: {first_line(error)} (accelerator: {asked['accelerator']}, devices: {asked['devices']}); "
            "accelerator: auto and devices: auto take what this machine has"
        ) from error


def _check_values(options: dict[str, Any]) -> None:
    """Try the plain arguments, so that a wrong one is refused before a run folder is made."""
    values = {key: value for key, value in options.items() if isinstance(value, (bool, int, float, str))}
    try:
        Trainer(**values | {"devices": options["devices"]} | _SILENT)
    except _REFUSALS as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error


def build_trainer(
    options: dict[str, Any], callbacks: list[Callback], files: AtomicCheckpointIO, folder: Path | None = None
) -> Trainer:
    """Build the Trainer.

    Args:
        options: The Trainer's arguments as configured.
        callbacks: All callbacks.
        files: Reads and writes the checkpoints.
        folder: The run folder; None where nothing is kept.

    Raises:
        ConfigError: If an argument of the Trainer is wrong.
    """
    chosen = {
        "callbacks": callbacks,
        "plugins": [*as_list(options["plugins"]), files],
        "logger": _logger(options["logger"], folder),
        # images are of one size; in a run that need not be the same again cuDNN may try which kernel is the fastest
        "benchmark": not options["deterministic"] if options["benchmark"] is None else options["benchmark"],
        "default_root_dir": str(folder) if folder else options["default_root_dir"],
    }
    if options.get("max_steps", -1) != -1:
        chosen["callbacks"] = [*callbacks, StepLimit(options["max_steps"])]
        chosen |= {"max_steps": -1, "max_epochs": -1 if options["max_epochs"] is None else options["max_epochs"]}
    flags = {flag: any(isinstance(item, kind) for item in callbacks) for flag, kind in _FLAGS.items()}
    try:
        trainer = ImgclsTrainer(**options | chosen | flags)
    except _REFUSALS as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error
    # Lightning 2.6 trains to the end of the epoch after SIGTERM, and talks to the other processes in the midst of a
    # step; imgcls handles the signal. There is no public switch; this may go when Lightning has one.
    trainer._signal_connector._sigterm_notifier_fn = _leave  # type: ignore[method-assign, assignment] # noqa: SLF001
    return trainer


def _leave(*_: Any) -> None:
    pass


def choose_precision(options: dict[str, Any], trained: str | None = None) -> str | None:
    """Return the precision to compute in, and say which where the configuration leaves it open; None: a plugin's.

    Args:
        options: The Trainer's arguments.
        trained: The precision that the checkpoint was trained in; its figures are of that precision.
    """
    on_gpu = torch.cuda.is_available() and options["accelerator"] in {"auto", "gpu", "cuda"}
    device = "GPU" if on_gpu else "processor"
    given = options["precision"]
    if given is None and any(isinstance(plugin, Precision) for plugin in as_list(options.get("plugins"))):
        return None
    best = best_precision(on_gpu)
    if given is None and trained is None:
        log.info("precision: %s, chosen for this %s", best, device)
        return best
    wanted = str(trained if given is None else given)
    impossible = wanted in {"16", "16-mixed"} and not on_gpu
    if given is None and (impossible or wanted == "bf16-mixed" != best):
        log.info("precision: trained in %s; %s is used, for this %s has none of that", wanted, best, device)
        return best
    if impossible:
        log.info("precision: %s needs a GPU; bf16-mixed is used on this processor", wanted)
        return "bf16-mixed"
    return wanted


def best_precision(on_gpu: bool) -> str:
    """Return ``bf16-mixed`` where the device computes in bfloat16, ``16-mixed`` on older GPUs, else ``32-true``."""
    if not on_gpu:
        abilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "16-mixed" if torch.cuda.get_device_capability() >= _TENSOR_CORES else "32-true"


def _logger(given: Any, folder: Path | None) -> Any:
    if given not in (None, True):
        return given
    if folder is None:
        return False
    # a version would be shown as v_num in the progress bar, and hp_metric at -1
    return RunLogger(folder, name="", version="", default_hp_metric=False)
