"""History: one row an epoch in metrics.csv, and one line an epoch on the terminal."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Callback

from imgcls.runtime.tables import write_table

log = logging.getLogger(__name__)


class History(Callback):
    """Keeps the values of every epoch.

    The rows are part of the checkpoint, and the file is written anew from them: after a resume it has each epoch once.

    Args:
        path: The CSV file; None to print alone.
        monitor: The value that the line shows besides the losses; None for the losses alone.
    """

    def __init__(self, path: Path | None, monitor: str | None) -> None:
        self.path = path
        self.monitor = monitor
        self.rows: list[dict[str, Any]] = []
        self._start = 0.0
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of an epoch that a checkpoint from the middle of it goes on with."""
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start = time.monotonic()
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that the validation values are this epoch's."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        values = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("validation_")
        }
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **values}
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        self._print(row, trainer.max_epochs)
        if self.path is not None:
            write_table(self.path, pd.DataFrame(self.rows))

    def state_dict(self) -> dict[str, Any]:
        """All rows so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the rows of the checkpoint."""
        self.rows = state_dict["rows"]

    def _print(self, row: dict[str, Any], max_epochs: int | None) -> None:
        shown = [name for name in ("train_loss", "validation_loss", self.monitor) if name is not None and name in row]
        # without its prefix, the monitored value leaves the line within 80 columns
        values = "  ".join(f"{_label(name)} {row[name]:.4f}" for name in dict.fromkeys(shown))
        total = max_epochs if max_epochs is not None and max_epochs > 0 else "?"
        log.info("epoch %d/%s  %s  %.1f s", row["epoch"] + 1, total, values, time.monotonic() - self._start)


def _label(name: str) -> str:
    return name if name.endswith("_loss") else name.removeprefix("validation_")
