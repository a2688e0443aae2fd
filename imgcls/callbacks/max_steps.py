"""StepLimit: the end of a run that is counted in steps."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class StepLimit(Callback):
    """Ends a run after ``trainer.max_steps``, and validates what is trained so far, if its epoch is one that validates.

    With a limit of its own, Lightning takes every resume for one from the middle of an epoch, and ends that of the
    checkpoint, which is over, a second time.

    Args:
        max_steps: Steps of the optimizer.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after the last step."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True
