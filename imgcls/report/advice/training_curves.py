"""What the curves show: training that ended too early, overfitting, and a frozen encoder that limits the model."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.config.overrides import value_at
from imgcls.report.advice.finding import Advice, Finding, fit_again, percent
from imgcls.results.run import Run
from imgcls.runtime.tables import counted
from imgcls.statistics.intervals import wilson

_LOSS = "validation_loss"
_ACCURACIES = ["train_accuracy", "validation_accuracy"]
_EPOCHS = 20  # the default of trainer.max_epochs
_STILL_FALLING = 0.1  # of the whole decrease of the loss, in the last quarter of the epochs
_RISE = 0.15  # of the validation loss after its minimum
_GAP = 0.03  # between the accuracies on train and on validation, from which on the model overfits
_ERRORS = 0.05  # of the validation images, below which frozen features suffice
_GAIN = 0.25  # of that gap, or of these errors, that a remedy may close


def trained_too_short(run: Run) -> Iterator[Finding]:
    """Find a run of one epoch, or one whose loss on validation still fell when its epochs were used up.

    The loss still falls if its mean of the last quarter of the epochs is lower than that of the quarter before by a
    tenth of the whole decrease, and the best epoch is in the last quarter. Under the default schedule the learning
    rate ends at zero, so the loss has become flat by then.
    """
    history = run.history
    if history is None or not len(history):
        return
    epochs, errors = len(history), 1 - float(run.evaluated.correct.mean())
    if epochs == 1:
        yield Finding(_too_short(run, epochs, _of_one_epoch(run, history)), errors, urgency=1)
        return
    share = _still_falling(history)
    best = run.of_fit.get("epoch")  # by the monitored metric, which need not be the loss
    is_late = best is None or best >= epochs - max(epochs // 4, 1)
    if share >= _STILL_FALLING and is_late and not _stopped_early(run, epochs):
        yield Finding(
            _too_short(run, epochs, _of_falling_loss(history, share)), errors * min(2 * share, 1.0), urgency=1
        )


def overfitted(run: Run) -> Iterator[Finding]:
    """Find a run whose loss on validation rose after an early minimum while train got better than validation."""
    table = _epochs_with(run, [*_ACCURACIES, _LOSS])
    validation = run.evaluation("validation")
    if not validation or len(table) < 5:
        return
    loss = _losses(table)
    at, rise = int(loss.argmin()), float(loss[-1] / loss.min() - 1)
    train, held_out = table[_ACCURACIES].iloc[-1].tolist()
    high = wilson(round(held_out * len(validation)), len(validation)).high
    if at <= 2 * len(table) / 3 and rise >= _RISE and train - high >= _GAP:
        advice = _overfitted_advice(run, at, len(table), rise, train, held_out, loss)
        yield Finding(advice, _GAIN * (train - held_out))


def limiting_encoder(run: Run) -> Iterator[Finding]:
    """Find a frozen encoder where train is not classified better than validation, and both have errors."""
    table, validation = _epochs_with(run, _ACCURACIES), run.evaluation("validation")
    is_frozen = value_at(run.config, "model.init_args.freeze_encoder") in (True, 1)
    if not is_frozen or not validation or not len(table):
        return
    train, held_out = table[_ACCURACIES].iloc[-1].tolist()
    low = wilson(round((1 - held_out) * len(validation)), len(validation)).low  # of the share of errors
    if low >= _ERRORS and train - held_out < _GAP:
        yield Finding(_frozen_advice(run, train, held_out), _GAIN * (1 - held_out), urgency=3)


def _epochs_with(run: Run, names: list[str]) -> pd.DataFrame:
    """Return the epochs that have values of some columns of ``metrics.csv``."""
    history = run.history
    return pd.DataFrame() if history is None or not {*names} <= {*history} else history.dropna(subset=names)


def _losses(history: pd.DataFrame) -> NDArray[np.float64]:
    return history[_LOSS].to_numpy(np.float64)


def _still_falling(history: pd.DataFrame) -> float:
    """Return the share of the decrease of the loss that came in the last quarter; 0 if it was not still falling."""
    if _LOSS not in history or history[_LOSS].isna().any():
        return 0.0
    loss = _losses(history)
    quarter = max(len(loss) // 4, 1)
    last, before = loss[-quarter:].mean(), loss[-2 * quarter : -quarter].mean()
    whole = float(loss[0] - loss.min())
    is_late = loss.argmin() >= len(loss) - quarter
    return float((before - last) / whole) if is_late and whole > 0 else 0.0


def _stopped_early(run: Run, epochs: int) -> bool:
    """Whether early stopping ended the run: fewer epochs than allowed, and no other limit."""
    limits = run.config.get("trainer") or {}
    most = limits.get("max_epochs")
    other = limits.get("max_steps", -1) not in (-1, None) or limits.get("max_time") is not None
    return isinstance(most, int) and 0 < epochs < most and not other


def _of_one_epoch(run: Run, history: pd.DataFrame) -> str:
    row, classes = history.iloc[-1], len(run.evaluated.class_names)
    shown = [name for name in ("train_loss", _LOSS) if name in row and pd.notna(row[name])]
    values = ", ".join(f"{name} {row[name]:.3f}" for name in shown)
    guess = "" if run.evaluated.multilabel else f" ({math.log(classes):.3f} is a uniform guess)"
    steps = f"{counted(int(row['step']), 'step')} of the optimizer" if "step" in row else "one pass over the images"
    return (
        f"Train saw each image once, {steps}: {values}{guess}. On {run.evaluated.split} "
        f"{percent(1 - float(run.evaluated.correct.mean()))} of the images are wrong. A curve of one point cannot show "
        "that more epochs would not help, and other advice is premature."
    )


def _of_falling_loss(history: pd.DataFrame, share: float) -> str:
    loss = _losses(history)
    lowest = f"The loss on validation was lowest in epoch {loss.argmin() + 1} of {len(loss)}"
    if len(loss) // 4 < 2:
        return f"{lowest}, where it fell from {loss[-2]:.3f} to {loss[-1]:.3f}; more epochs may lower it further."
    return (
        f"{lowest}, and {percent(share)} of its whole decrease came in the last quarter of the epochs; a finished run "
        "has nearly none there."
    )


def _too_short(run: Run, epochs: int, evidence: str) -> Advice:
    limits = run.config.get("trainer") or {}
    keys = {"max_steps": -1, "max_time": "null"}
    limited = [key for key, none in keys.items() if limits.get(key) not in (None, none)]
    also = "".join(f" --trainer.{key} {keys[key]}" for key in limited)
    return Advice(
        "short_training",
        f"Training ended after {counted(epochs, 'epoch')}"
        + (", too early" if epochs == 1 else " while it still improved"),
        evidence,
        f"Train again: {fit_again(run, f'--trainer.max_epochs {max(_EPOCHS, 2 * epochs)}{also}')}.",
    )


def _overfitted_advice(
    run: Run, at: int, epochs: int, rise: float, train: float, held_out: float, loss: NDArray[np.float64]
) -> Advice:
    return Advice(
        "overfitting",
        f"The model fits its training images better than new ones from epoch {at + 1} on",
        f"The loss on validation was lowest in epoch {at + 1} of {epochs} ({loss.min():.3f}) and rose by "
        f"{percent(rise)} to {loss[-1]:.3f}; at the end {percent(train)} of train and "
        f"{percent(held_out)} of validation are right.",
        "More images help most. With these: stronger augmentation, "
        f"{fit_again(run, '--data.augmentations.train strong')}, or "
        f"{fit_again(run, '--model.freeze_encoder 0.5')}.",
    )


def _frozen_advice(run: Run, train: float, held_out: float) -> Advice:
    return Advice(
        "frozen_encoder",
        "The frozen encoder may limit the model",
        f"At the end {percent(train)} of train and {percent(held_out)} of validation are right: the classifier fits "
        "its training images no better than new ones, and the features below it are not trained.",
        f"Train the encoder, too: {fit_again(run, '--model.freeze_encoder false')}, or its last half: "
        f"{fit_again(run, '--model.freeze_encoder 0.5')}.",
    )
