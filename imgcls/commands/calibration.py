"""Calibration at the end of a fit: the temperature of the best checkpoint, fitted on the validation images."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from scipy.special import expit, softmax

from imgcls.callbacks.logit_collector import Collected, LogitCollector
from imgcls.checkpoints.calibration import with_calibration
from imgcls.checkpoints.io import read_checkpoint, write_checkpoint
from imgcls.models.classifier import ImageClassifier
from imgcls.models.inference import InferenceModule
from imgcls.runtime.optional_part import optional_part
from imgcls.runtime.tables import short_path
from imgcls.statistics.temperature import Temperature, fit_temperature

log = logging.getLogger(__name__)

_SPLIT = "validation"


def validate_and_calibrate(
    evaluate: Callable[[], dict[str, float]], trainer: Trainer, model: ImageClassifier, path: Path
) -> tuple[dict[str, float], Temperature | None]:
    """Validate a checkpoint at the temperature 1, fit the temperature, and validate again if it is another.

    The second validation takes as long as that of an epoch. It makes values and files those that ``imgcls validate``
    gives, also for metrics and steps of the user's own. ``evaluate`` validates, and returns the logged values.

    Returns:
        The values of the calibrated checkpoint, and the temperature; None, logged, if it could not be fitted.
    """
    kind = type(model)
    for name in ("forward", "classify"):  # which a temperature would not reach
        if getattr(kind, name) is not getattr(InferenceModule, name):
            log.info("Temperature 1: %s has its own %s", kind.__name__, name)
            return evaluate(), None
    with _collecting(trainer, model) as collector:
        values = evaluate()
    found = None
    if trainer.is_global_zero:
        with optional_part(f"{short_path(path)}: cannot be calibrated", "its temperature stays 1"):
            found = _calibrate(path, collector.collected)
    found = trainer.strategy.broadcast(found)
    return (values if found is None or (found.values == 1).all() else evaluate()), found


@contextmanager
def _collecting(trainer: Trainer, model: ImageClassifier) -> Iterator[LogitCollector]:
    """Keep the logits of a validation within the block, not divided by the temperature."""
    collector = LogitCollector()
    trainer.callbacks.append(collector)  # type: ignore[attr-defined]
    model.uncalibrated = True
    try:
        yield collector
    finally:
        model.uncalibrated = False
        trainer.callbacks.remove(collector)  # type: ignore[attr-defined]


def _calibrate(path: Path, found: Collected | None) -> Temperature | None:
    """Fit the temperature, log it, and write it into a checkpoint with the scores of the images."""
    if found is None:
        log.info("Temperature 1: the validation step returns no logits")
        return None
    fitted = fit_temperature(found.logits, found.labels)
    logits = found.logits / fitted.values
    probs = softmax(logits, axis=1) if found.labels.ndim == 1 else expit(logits)
    write_checkpoint(with_calibration(read_checkpoint(path), fitted.values, _SPLIT, probs, found.labels), path)
    _log(fitted)
    return fitted


def _log(fitted: Temperature) -> None:
    if fitted.reason:
        log.info("Temperature 1: %s", fitted.reason)
        return
    values = fitted.values.ravel()
    shown = f"{values[0]:.3g}" if len(values) == 1 else f"{values.min():.3g} to {values.max():.3g} by class"
    log.info(
        "Temperature %s: log loss %.4f -> %.4f (cross-validated on %d validation images)",
        shown,
        fitted.before,
        fitted.after,
        fitted.images,
    )


def about_temperature(fitted: Temperature, class_names: list[str]) -> dict[str, Any]:
    """Return what results.json has of a temperature; the classes are in the order of the logits."""
    values = fitted.values.tolist()
    about = {
        "temperature": dict(zip(class_names, values, strict=True)) if fitted.values.ndim else values,
        "reason": fitted.reason or None,
        "images": fitted.images,
        "log_loss_before": fitted.before,
        "log_loss_after": fitted.after,
    }
    return {"calibration": about}
