"""End bad trials early: by Optuna's pruner after each epoch, or after a screening fit.

A screening fit trains each trial briefly first, and only the best share is continued: Li et al., A System for Massively
Parallel Hyperparameter Tuning, 2020 (https://arxiv.org/abs/1810.05934).
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial

from imgcls.callbacks.csv_history import History
from imgcls.config.overrides import Config
from imgcls.config.sections import Fidelity, OptunaConfig
from imgcls.tune.storage import patiently

log = logging.getLogger(__name__)

SCREEN = "screen"  # user attribute of a trial: its value in the screening fit; also the folder of that fit


def make_pruner(config: OptunaConfig, max_epochs: int | None) -> BasePruner:
    """Build the pruner for trials of ``max_epochs``."""
    is_multi_objective = isinstance(config.metric, list) and len(config.metric) > 1
    if is_multi_objective and config.pruner != "none":
        log.info("optuna.pruner: %s is ignored, since Optuna does not prune with several metrics", config.pruner)
    if is_multi_objective or config.pruner == "none":
        return NopPruner()
    if config.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(max_epochs or 1, 1))
    return MedianPruner(n_startup_trials=4, n_warmup_steps=0)


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


def screening_config(config: Config, fidelity: Fidelity) -> Config:
    """Return the configuration of the screening fit: fewer epochs and a share of the batches."""
    trainer = config["trainer"]
    epochs = trainer["max_epochs"] if fidelity.epochs is None else fidelity.epochs
    limit = 1.0 if trainer["limit_train_batches"] is None else trainer["limit_train_batches"]
    share = limit * fidelity.data if isinstance(limit, float) else max(round(limit * fidelity.data), 1)
    return config | {"trainer": trainer | {"max_epochs": epochs, "limit_train_batches": share}}


def survives(number: int, trials: Sequence[FrozenTrial], maximize: bool, keep: float) -> bool:
    """Whether a screened trial is among the best share (``keep``, above 0 to 1) of those so far; at least one is."""
    sign = 1 if maximize else -1
    screened = [trial for trial in trials if SCREEN in trial.user_attrs]
    ranked = sorted(screened, key=lambda trial: (-sign * trial.user_attrs[SCREEN], trial.number))
    return number in [trial.number for trial in ranked[: max(1, math.floor(keep * len(ranked)))]]
