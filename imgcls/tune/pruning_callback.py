"""PruningCallback: report the value of each epoch to Optuna and end a trial that its pruner rejects."""

from pathlib import Path

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback

from imgcls.callbacks.csv_history import History
from imgcls.tune.storage import patiently


class PruningCallback(Callback):
    """Report the metric at the end of each epoch that has it.

    Args:
        trial: The trial.
        metric: Name of the logged value.
        offset: Added to the epoch: number of steps reported by the screening fit.
        folder: The tune folder.
    """

    def __init__(self, trial: optuna.Trial, metric: str, offset: int, folder: Path) -> None:
        self.trial = trial
        self.metric = metric
        self.offset = offset
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the latest row of the history.

        Raises:
            TrialPruned: If the pruner ends the trial.
        """
        [history] = [item for item in trainer.callbacks if isinstance(item, History)]  # type: ignore[attr-defined]
        row = history.rows[-1]
        step = row["epoch"] + self.offset
        if self.metric not in row:
            return
        with patiently(self.folder):
            known = self.trial.study.get_trials(deepcopy=False)[self.trial.number].intermediate_values
            if step not in known:  # a resumed trial may repeat an epoch
                self.trial.report(row[self.metric], step)
            if trainer.current_epoch + 1 != trainer.max_epochs and self.trial.should_prune():
                raise optuna.TrialPruned(f"epoch {row['epoch'] + 1}: {self.metric} {row[self.metric]:.4f}")
