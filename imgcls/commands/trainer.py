"""Lightning's Trainer, with the defaults of imgcls and a method for each of its commands."""

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import rank_zero_only

from imgcls.callbacks.stopping import StepLimit
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.commands.run_logger import RunLogger
from imgcls.errors import ConfigError, first_line
from imgcls.runtime.cores import available_cores
from imgcls.runtime.distributed import ProcessWatch

log = logging.getLogger(__name__)

_TENSOR_CORES = (7, 0)  # the first compute capability that has them
LIGHTNING_ERRORS = (MisconfigurationException, ValueError, TypeError)
FLAGS: dict[str, type] = {"enable_checkpointing": Checkpoint, "enable_progress_bar": ProgressBar}
SILENT: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
MIXED = "-mixed"  # ends the name of a precision that computes in 16 bits with weights in float32
_Precision = Literal[
    16, 32, 64, "16", "16-mixed", "16-true", "bf16", "bf16-mixed", "bf16-true", "32", "32-true", "64", "64-true",
    "transformer-engine", "transformer-engine-float16",
]  # fmt: skip


class ImgclsTrainer(Trainer):
    """Lightning Trainer options.

    The parser takes each command from the method of its name. The arguments below are those whose default or meaning
    differs from Lightning's, and those whose type is ``Union[int, float]`` in Lightning 2.6: ``typing`` caches a union
    in the order in which any module wrote it first, so that 1 (one batch) may be read as 1.0 (all of them).

    Args:
        precision: Number format of the computation: 16, bf16, 32, … Null: chosen for the device, and logged.
        max_epochs: Stop after this number of epochs; -1: train until ``max_steps``, ``max_time`` or early stopping.
        num_sanity_val_steps: Batches to validate before training, as a test.
        enable_model_summary: Print a table of the layers.
        benchmark: Let cuDNN measure which kernels are the fastest. Null: unless ``deterministic`` is set.
        limit_train_batches: Training batches of an epoch: a fraction of them (1.0: all), or a number (1: one batch).
        limit_val_batches: Validation batches, as ``limit_train_batches``.
        limit_test_batches: Test batches, as ``limit_train_batches``.
        limit_predict_batches: Batches to predict, as ``limit_train_batches``.
        overfit_batches: Train and validate on this fraction or number of the training batches, to find bugs.
        val_check_interval: Validate after this fraction of an epoch, number of batches, or time (``DD:HH:MM:SS``).
        options: The further options of Lightning's Trainer.
    """

    def __init__(
        self,
        *,
        precision: _Precision | None = None,
        max_epochs: int | None = 20,
        num_sanity_val_steps: int | None = 0,
        enable_model_summary: bool | None = False,
        benchmark: bool | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            precision=precision,
            max_epochs=max_epochs,
            num_sanity_val_steps=num_sanity_val_steps,
            enable_model_summary=enable_model_summary,
            benchmark=benchmark,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            **options,
        )

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Steps of the whole run, by epochs and by :class:`StepLimit`."""
        limits = [item.max_steps for item in self.callbacks if isinstance(item, StepLimit)]  # type: ignore[attr-defined]
        return min([super().estimated_stepping_batches, *limits])

    def tune(self, search: Callable[[], None]) -> None:
        """Search the best values of configuration keys with Optuna."""
        search()

    def check(self, scan: Callable[[], None]) -> None:
        """Check the data before training."""
        scan()


def is_first_process() -> bool:
    """Whether this process has rank 0, by the launcher's environment: the one that prints and writes."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def as_list(value: Any) -> list[Any]:
    """Return an argument of the Trainer that may be None, one object or several, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def build_trainer(
    options: dict[str, Any], callbacks: list[Callback], files: AtomicCheckpointIO, folder: Path | None = None
) -> ImgclsTrainer:
    """Build the Trainer; ``folder`` is None if nothing is kept.

    Raises:
        ConfigError: If an argument of the Trainer is wrong.
    """
    chosen = {
        "callbacks": list(callbacks),
        "plugins": [*as_list(options["plugins"]), files],
        "logger": _logger(options["logger"], folder),
        # all batches have one shape, so that cuDNN measures its kernels once; their rounding differs between runs
        "benchmark": not options["deterministic"] if options["benchmark"] is None else options["benchmark"],
        "default_root_dir": str(folder) if folder else options["default_root_dir"],
    }
    if options.get("max_steps", -1) != -1:
        chosen["callbacks"] += [StepLimit(options["max_steps"])]
        chosen |= {"max_steps": -1, "max_epochs": -1 if options["max_epochs"] is None else options["max_epochs"]}
    flags = {flag: any(isinstance(item, kind) for item in callbacks) for flag, kind in FLAGS.items()}
    try:
        trainer = ImgclsTrainer(**options | chosen | flags)
    except LIGHTNING_ERRORS as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error
    if trainer.strategy.launcher is not None:  # Lightning calls each hook of each callback in each step
        trainer.callbacks.insert(0, ProcessWatch())  # type: ignore[attr-defined]
    if not hasattr(trainer, "val_check_interval"):  # Lightning 2.6 leaves it out for a time; EarlyStopping reads it
        trainer.val_check_interval = options["val_check_interval"]
    # After SIGTERM, Lightning 2.6 trains to the end of the epoch and communicates with the other processes within a
    # step; imgcls handles the signal itself (runtime/signals.py). May go when Lightning has a public switch.
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign] # noqa: SLF001
    return trainer


def choose_precision(options: dict[str, Any]) -> str | None:
    """Return the precision to train in; None if a plugin decides."""
    return _possible(options, best_precision(_uses_gpu(options)))


def evaluation_precision(options: dict[str, Any], trained: str | None) -> str | None:
    """Return the precision to evaluate in; None if a plugin decides.

    It is float32 unless the user gives another, since probabilities in bfloat16 differ by up to 0.1 from those of the
    exported model. Weights that were trained in another number format, such as bf16-true, keep it.
    """
    return _possible(options, "32-true" if trained is None or trained.endswith(MIXED) else trained)


def evaluate_in_float32(trainer: Trainer) -> None:
    """Let a Trainer that has trained in mixed precision evaluate as the commands ``validate`` and ``test`` do."""
    if str(trainer.precision).endswith(MIXED):
        log.info("Evaluating in float32; in training it was %s, so that figures differ a little", trainer.precision)
        trainer.strategy.precision_plugin = Precision()


def _possible(options: dict[str, Any], default: str) -> str | None:
    """Return the precision that is given, else the default; on a CPU, bfloat16 instead of 16-bit mixed precision."""
    given = options["precision"]
    if given is None:
        plugged = any(isinstance(plugin, Precision) for plugin in as_list(options.get("plugins")))
        return None if plugged else default
    wanted, on_gpu = str(given), _uses_gpu(options)
    if wanted in {"16", "16-mixed"} and not on_gpu:
        log.info("trainer.precision: %s needs a GPU; using bf16-mixed on this CPU", wanted)
        wanted = "bf16-mixed"
    if wanted in {"bf16", "bf16-mixed", "bf16-true"} and not on_gpu and best_precision(on_gpu) == "32-true":
        log.warning(
            "trainer.precision: %s is several times slower than 32 on this CPU, which has no bfloat16 units; to speed "
            "it up: --trainer.precision 32",
            given,
        )
    return wanted


def _uses_gpu(options: dict[str, Any]) -> bool:
    return torch.cuda.is_available() and options["accelerator"] in {"auto", "gpu", "cuda"}


def log_device(trainer: Trainer, automatic: bool = False) -> None:
    """Log the device and the precision, and how to change one that was chosen automatically."""
    why = " (to change it: --trainer.precision 32)" if automatic and trainer.precision != "32-true" else ""
    log.info("%s, precision %s%s", device_name(trainer), trainer.precision, why)


def device_name(trainer: Trainer) -> str:
    """Return the device of a run in a few words, with the number of processes if there are several."""
    device = trainer.strategy.root_device
    name = f"CPU, {available_cores()} cores" if device.type == "cpu" else device.type.upper()
    if device.type == "cuda":
        name = f"GPU: {torch.cuda.get_device_name(device)}"
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name


def best_precision(on_gpu: bool) -> str:
    """Return ``bf16-mixed`` where the device computes in it, else ``16-mixed`` on tensor cores, else ``32-true``."""
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
