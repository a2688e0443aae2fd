"""Reporter: tells the study the value of each epoch, and ends a trial that is worse than the others were."""

from pathlib import Path

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback

from imgcls.callbacks.csv_history import History
from imgcls.tune.storage import patiently


class Reporter(Callback):
    """Reports the metric at the end of each epoch that has it.

    Args:
        trial: The trial.
        metric: Name of the logged value.
        offset: Added to the epoch: the steps that screens took before.
        folder: The tune folder.
    """

    def __init__(self, trial: optuna.Trial, metric: str, offset: int, folder: Path) -> None:
        self.trial = trial
        self.metric = metric
        self.offset = offset
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the row that the history has just got.

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
            if step not in known:  # a trial that goes on from its checkpoint may repeat an epoch
                self.trial.report(row[self.metric], step)
            if trainer.current_epoch + 1 != trainer.max_epochs and self.trial.should_prune():
                raise optuna.TrialPruned(f"epoch {row['epoch'] + 1}: {self.metric} {row[self.metric]:.4f}")
