"""Screening fits: train each trial briefly first, and continue only the best share.

Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020 (https://arxiv.org/abs/1810.05934).
"""

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from imgcls.config.overrides import Config
from imgcls.config.sections import Fidelity

SCREEN = "screen"  # user attribute of a trial: its value in the screening fit; also the folder of that fit


def screening_config(config: Config, fidelity: Fidelity) -> Config:
    """Return the configuration of the screening fit: fewer epochs and a share of the batches."""
    trainer = config["trainer"]
    epochs = trainer["max_epochs"] if fidelity.epochs is None else fidelity.epochs
    limit = 1.0 if trainer["limit_train_batches"] is None else trainer["limit_train_batches"]
    share = limit * fidelity.data if isinstance(limit, float) else max(round(limit * fidelity.data), 1)
    return config | {"trainer": trainer | {"max_epochs": epochs, "limit_train_batches": share}}


def survives(number: int, trials: Sequence[FrozenTrial], maximize: bool, keep: float) -> bool:
    """Whether a trial is among the best share of the screened trials so far.

    Args:
        number: Number of the trial, which is screened.
        trials: All trials.
        maximize: Whether higher values are better.
        keep: The share, above 0 to 1; at least one trial survives.
    """
    sign = 1 if maximize else -1
    screened = [trial for trial in trials if SCREEN in trial.user_attrs]
    ranked = sorted(screened, key=lambda trial: (-sign * trial.user_attrs[SCREEN], trial.number))
    return number in [trial.number for trial in ranked[: max(1, math.floor(keep * len(ranked)))]]
