"""Lightning's Trainer with what imgcls chooses where the configuration leaves it open."""

import inspect
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import rank_zero_only

from imgcls.callbacks.stopping import StepLimit
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.commands.run_logger import RunLogger
from imgcls.errors import ConfigError, first_line

log = logging.getLogger(__name__)

TRAINER_DEFAULTS = {"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False}

_TENSOR_CORES = (7, 0)  # the first compute capability that has them
LIGHTNING_ERRORS = (MisconfigurationException, ValueError, TypeError)
FLAGS: dict[str, type] = {"enable_checkpointing": Checkpoint, "enable_progress_bar": ProgressBar}


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
    flags = {flag: any(isinstance(item, kind) for item in callbacks) for flag, kind in FLAGS.items()}
    try:
        trainer = ImgclsTrainer(**options | chosen | flags)
    except LIGHTNING_ERRORS as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error
    if not hasattr(trainer, "val_check_interval"):  # Lightning 2.6 leaves it out for a time; EarlyStopping reads it
        trainer.val_check_interval = options["val_check_interval"]
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
