"""A frozen encoder whose features do not suffice, not even for the training images."""

from collections.abc import Iterator

from imgcls.report.advice.finding import Advice, Finding, fit_again, percent
from imgcls.results.run import Run
from imgcls.statistics.intervals import wilson

_ERRORS = 0.05  # of the validation images, below which the features suffice
_GAP = 0.03  # between the accuracies on train and on validation, above which the model overfits
_GAIN = 0.25  # of the errors that trained layers may avoid


def limiting_encoder(run: Run) -> Iterator[Finding]:
    """Find a frozen encoder where train is not classified better than validation, and both have errors."""
    history, validation = run.history, run.evaluation("validation")
    given = run.config.get("model", {}).get("init_args", {}).get("freeze_encoder")
    names = ["train_accuracy", "validation_accuracy"]
    if given not in (True, 1) or history is None or validation is None or not set(names) <= set(history.columns):
        return
    table = history.dropna(subset=names)
    if not len(table):
        return
    train, held_out = (float(table[name].iloc[-1]) for name in names)
    low = wilson(round((1 - held_out) * len(validation)), len(validation)).low  # of the share of errors
    if low >= _ERRORS and train - held_out < _GAP:
        yield Finding(_advice(run, train, held_out), _GAIN * (1 - held_out), urgency=3)


def _advice(run: Run, train: float, held_out: float) -> Advice:
    return Advice(
        "frozen_encoder",
        "The frozen encoder may limit the model",
        f"At the end {percent(train)} of train and {percent(held_out)} of validation are right: the classifier fits "
        "its training images no better than new ones, and the features below it are not trained.",
        f"Train the encoder, too: {fit_again(run, '--model.freeze_encoder false')}, or its last half: "
        f"{fit_again(run, '--model.freeze_encoder 0.5')}.",
    )
