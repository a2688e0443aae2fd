"""History: one row per epoch in metrics.csv and one line per epoch on the terminal."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Callback

from imgcls.runtime.progress import duration
from imgcls.runtime.tables import write_table

log = logging.getLogger(__name__)

_COLUMNS = 80
_DIGITS = (4, 3, 2)  # after the point; fewer where the line would be too long


class History(Callback):
    """Record the logged values of every epoch.

    The rows are saved in the checkpoint and the file is rewritten from them, so that it has each epoch once after a
    resume.

    Args:
        path: The CSV file; None to only print.
        monitor: The value shown beside the losses; None for the losses only.
    """

    def __init__(self, path: Path | None, monitor: str | None) -> None:
        self.path = path
        self.monitor = monitor
        self.rows: list[dict[str, Any]] = []
        self._start = 0.0
        self._before: dict[str, Any] = {}  # the values at the start of the epoch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, for a run that resumes within an epoch."""
        self._start = time.monotonic()
        self._before = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock; complete the row of the epoch before."""
        self._complete(trainer)
        self._start = time.monotonic()
        self._before = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **self._logged(trainer)}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._print(row, trainer.max_epochs)
            self._write()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the last row."""
        self._complete(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return all rows."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of the checkpoint."""
        self.rows = state_dict["rows"]

    def _logged(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the values that were logged in this epoch; Lightning keeps those of earlier ones, the same tensors."""
        values = trainer.callback_metrics.items()
        return {name: float(value) for name, value in values if value is not self._before.get(name)}

    def _complete(self, trainer: pl.Trainer) -> None:
        """Add what the model's own ``on_train_epoch_end`` logged, which runs after that of callbacks."""
        late = {name: value for name, value in self._logged(trainer).items() if self.rows and name not in self.rows[-1]}
        if late:
            self.rows[-1] |= late
            if trainer.is_global_zero:
                self._write()

    def _write(self) -> None:
        if self.path is not None:
            write_table(self.path, pd.DataFrame(self.rows))

    def _print(self, row: dict[str, Any], max_epochs: int | None) -> None:
        total = max_epochs if max_epochs is not None and max_epochs > 0 else "?"
        seconds = time.monotonic() - self._start
        took = f"{seconds:.1f} s" if seconds < 100 else duration(seconds)
        shown = [name for name in ("train_loss", "validation_loss", self.monitor) if name is not None and name in row]
        for digits in _DIGITS:
            values = [f"{name} {row[name]:.{digits}f}" for name in dict.fromkeys(shown)]
            line = "  ".join([f"epoch {row['epoch'] + 1}/{total}", *_joined(values), took])
            if len(line) <= _COLUMNS:
                break
        log.info("%s", line)


def _joined(values: list[str]) -> list[str]:
    """Join two values of the validation, so that the line fits into 80 columns."""
    of_validation = [value for value in values if value.startswith("validation_")]
    if len(of_validation) < 2:
        return values
    text = ", ".join(value.removeprefix("validation_") for value in of_validation)
    return [*(value for value in values if value not in of_validation), f"validation: {text}"]
