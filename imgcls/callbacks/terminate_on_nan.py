"""TerminateOnNaN: end a run at the step whose loss or weights are not finite, and keep its good checkpoints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.callbacks.metrics_logger import rate_of
from imgcls.errors import ConfigError, RunError, listed
from imgcls.runtime.host_copy import start_copy

_MOST_SKIPPED = 10  # steps in a row without an update, by a gradient scaler
_MOST_FILES = 8


class TerminateOnNaN(Callback):
    """Check the loss of each step, and the weights before they are validated or saved.

    Lightning would continue, and NaN logits yield an accuracy. On a GPU the loss is copied asynchronously and checked
    during the next step. With a gradient scaler (``16-mixed``) some steps with a non-finite loss are skipped.
    """

    def __init__(self) -> None:
        self._rate = 0.0  # learning rate of the next step
        self._step: _Step | None = None
        self._skipped = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the learning rate of the first step."""
        self._rate = rate_of(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss of this step on a CPU, that of the previous step on a GPU."""
        rate, self._rate = self._rate, rate_of(trainer)
        self._check_step(trainer)
        loss: Tensor | None = outputs.get("batch_loss", outputs.get("loss")) if outputs else None
        if loss is None or loss.device.type not in {"cpu", "cuda"}:
            return
        value, copied = start_copy(loss.detach())
        epoch, number = trainer.current_epoch + 1, trainer.global_step
        paths = batch.get("path", []) if isinstance(batch, Mapping) else []
        self._step = _Step(epoch, number, rate, value, copied, outputs.get("logits"), paths)
        if copied is None:
            self._check_step(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights, since the best validation within an epoch is saved."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the weights, also when a ModelCheckpoint saves within an epoch."""
        self._check(trainer, pl_module)

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_step(trainer)
        if not is_finite(pl_module):
            raise RunError(
                f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}: the weights are not finite (learning "
                f"rate {rate_of(trainer):g}); {_remedy(trainer)}"
            )

    def _check_step(self, trainer: pl.Trainer) -> None:
        step, self._step = self._step, None
        if step is None:
            return
        if step.copied is not None:
            step.copied.synchronize()
        loss = float(step.loss)
        self._skipped = 0 if math.isfinite(loss) else self._skipped + 1
        if not self._skipped:
            return
        if getattr(trainer.precision_plugin, "scaler", None) is None or self._skipped > _MOST_SKIPPED:
            raise RunError(
                f"epoch {step.epoch}, step {step.number}: the loss is not finite ({loss}) at the learning rate "
                f"{step.rate:g}, in the batch of {listed(step.suspects(), _MOST_FILES)}; {_remedy(trainer)}"
            )


@dataclass(slots=True)
class _Step:
    """A step whose loss is still to be checked.

    Args:
        epoch: Its epoch, counted from 1.
        number: Number of optimizer steps so far.
        rate: Its learning rate.
        loss: Scalar on the host, valid once ``copied`` is reached.
        copied: Event after the copy of the loss from a GPU; None if there is nothing to wait for.
        logits: ``(B, classes)``; None if a user's own step returns none.
        paths: Paths of the batch's images.
    """

    epoch: int
    number: int
    rate: float
    loss: Tensor
    copied: torch.cuda.Event | None
    logits: Tensor | None
    paths: Sequence[str]

    def suspects(self) -> list[str]:
        """Return the images whose logits are not finite, else all of the batch."""
        finite = [] if self.logits is None else self.logits.isfinite().all(1).tolist()
        return [path for path, good in zip(self.paths, finite, strict=False) if not good] or list(self.paths)


def is_finite(module: torch.nn.Module) -> bool:
    """Whether all weights are finite; synchronises with the device once."""
    tensors = [item.detach() for item in (*module.parameters(), *module.buffers()) if item.is_floating_point()]
    # the norm of finite 16-bit weights may overflow
    norm = torch.nn.utils.get_total_norm(tensors)
    return bool(norm.isfinite()) or all(bool(item.isfinite().all()) for item in tensors)


def refuse_not_finite(source: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse non-finite initial weights.

    Raises:
        ConfigError: Names their source, counts the tensors that are not finite, and names some.
    """
    broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        count = f"{len(broken)} of {len(weights)} tensors"
        raise ConfigError(f"{source}: weights are not finite in {count}: {listed(broken, 3)}; use other weights")


def _remedy(trainer: pl.Trainer) -> str:
    savers = [item for item in trainer.checkpoint_callbacks if isinstance(item, CheckpointSaver)]
    kept = [str(saver.last) for saver in savers if saver.last.exists()]
    rate: float = trainer.lightning_module.lr  # type: ignore[assignment]  # the configured peak
    return (
        f"{f'{kept[0]} holds the last finite weights' if kept else 'no checkpoint is saved yet'}. Set "
        f"trainer.gradient_clip_val: 1.0, or start again with a lower model.init_args.optimizer_config.lr ({rate:g})"
    )
