"""StandStill: a fit that begins, and trains nothing."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class StandStill(Callback):
    """Lets a fit read its checkpoint, and the callbacks before this one do what they do at its start, and ends it."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        trainer.should_stop = True
