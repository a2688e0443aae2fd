"""FiniteWeights: a run whose weights are no numbers any more ends, before they replace a good checkpoint."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from imgcls.errors import RunError


class FiniteWeights(Callback):
    """Looks at weights before they are validated or saved: Lightning trains on, and NaN logits have an accuracy."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse weights that are not finite: within an epoch, too, the best validation is saved."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            check_finite(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse weights that are not finite."""
        check_finite(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse weights that are not finite, also where a ModelCheckpoint saves within an epoch."""
        check_finite(trainer, pl_module)


def check_finite(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Refuse weights that are not finite; a loss may be, where a gradient scaler skips the step.

    Raises:
        RunError: Names epoch, step and learning rate.
    """
    tensors = [item.detach() for item in (*pl_module.parameters(), *pl_module.buffers()) if item.is_floating_point()]
    # the norm costs one wait for the device; in 16 bits it may be infinite by itself
    if torch.nn.utils.get_total_norm(tensors).isfinite() or all(item.isfinite().all() for item in tensors):
        return
    loss = trainer.callback_metrics.get("train_loss")
    before = "" if loss is None else f"train_loss is {float(loss)}, and "
    rate: float = pl_module.lr  # type: ignore[assignment]
    raise RunError(
        f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}: {before}the weights are not finite; the "
        f"checkpoints hold what was before. Set trainer.gradient_clip_val: 1.0, or begin anew with a lower "
        f"model.init_args.optimizer_config.lr ({rate:g})"
    )
