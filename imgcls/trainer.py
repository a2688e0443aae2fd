"""Lightning's Trainer with what imgcls chooses where the configuration leaves it open."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from imgcls.checkpoint import AtomicCheckpointIO
from imgcls.errors import ConfigError, first_line

log = logging.getLogger(__name__)

TRAINER_DEFAULTS = {"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False}


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes, as the launcher's environment says."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def check_devices(options: dict[str, Any]) -> None:
    """Refuse devices that this machine lacks, before any image or model is looked at.

    Raises:
        ConfigError: Says what was asked for and what takes what there is.
    """
    asked = {key: options[key] for key in ("accelerator", "devices", "num_nodes")}
    silent: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    try:
        Trainer(**asked, **silent)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(
            f"trainer: {first_line(error)} (accelerator: {asked['accelerator']}, devices: {asked['devices']}); "
            "accelerator: auto and devices: auto take what this machine has"
        ) from error


def build_trainer(
    options: dict[str, Any], callbacks: list[Callback], files: AtomicCheckpointIO, folder: Path | None, fitting: bool
) -> Trainer:
    """Build the Trainer.

    Args:
        options: The Trainer's arguments as configured.
        callbacks: All callbacks.
        files: Reads and writes the checkpoints.
        folder: The run folder; None where nothing is kept.
        fitting: Whether the run trains.

    Raises:
        ConfigError: If an argument of the Trainer is wrong.
    """
    chosen = {
        "callbacks": callbacks,
        "precision": _precision(options),
        "plugins": [*_as_list(options["plugins"]), files],
        "logger": _logger(options["logger"], folder),
        "default_root_dir": options["default_root_dir"] or (str(folder) if folder else None),
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
    }
    if not fitting and options["devices"] == "auto":
        chosen["devices"] = 1  # several processes would need shares of equal length
    try:
        return Trainer(**options | chosen)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error


def _precision(options: dict[str, Any]) -> Any:
    on_gpu = torch.cuda.is_available() and options["accelerator"] in {"auto", "gpu", "cuda"}
    given = options["precision"]
    if given is None:
        precision = best_precision(on_gpu)
        log.info("precision: %s, chosen for this %s", precision, "GPU" if on_gpu else "processor")
        return precision
    if str(given) in {"16", "16-mixed"} and not on_gpu:
        log.info("precision: %s needs a GPU; bf16-mixed is used on this processor", given)
        return "bf16-mixed"
    return given


def best_precision(on_gpu: bool) -> str:
    """Return ``bf16-mixed`` where the device computes in bfloat16, else ``32-true``."""
    if on_gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        abilities = torch.cpu.get_capabilities()
        fast = bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return "bf16-mixed" if fast else "32-true"


def _logger(given: Any, folder: Path | None) -> Any:
    if given not in (None, True):
        return given
    if folder is None:
        return False
    return TensorBoardLogger(folder.parent.parent, name=folder.parent.name, version=folder.name)


def _as_list(plugins: Any) -> list[Any]:
    if plugins is None:
        return []
    return list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
