"""Temperature scaling: divide logits by one number, so that probabilities match how often they are right.

Guo et al. 2017, "On calibration of modern neural networks"; with a prior on log T, and kept only where it helps.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax

Floats = NDArray[np.float64]

MIN_POSITIVES = 50  # images with a class, and without it, from which it may have a temperature of its own
_PRIOR = 0.5  # standard deviation of log T
_BOUND = 3.0  # of log T
_MARGIN = 0.5  # standard errors by which the cross-validated log loss must improve
_MOST_VALUES = 4_000_000  # logits that a fit uses


class Temperature(NamedTuple):
    """A fitted temperature.

    Args:
        values: By which logits are divided, float64: of shape ``()``, or ``(C,)`` for one of each class.
        reason: Why it is 1; empty if it is fitted.
        images: Number of images it was fitted on.
        before: Their log loss at temperature 1, in nats.
        after: Their log loss, each at the temperature fitted without it (leave-one-out); ``before`` if it is 1.
    """

    values: Floats
    reason: str
    images: int
    before: float
    after: float


class _Terms(NamedTuple):
    """The log loss of each image, and its first and second derivative by log T, each ``(N,)``."""

    loss: Floats
    slope: Floats
    curve: Floats


_Loss = Callable[[float | Floats], _Terms]  # of log T: one for all images, or ``(N, 1)``, or ``(N, C)``


class _Fit(NamedTuple):
    log_t: float
    left_out: Floats  # log T fitted without each image, ``(N, 1)``
    is_better: bool


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer | np.bool_]) -> Temperature:
    """Fit the temperature of a classifier on images that it was not trained on.

    Log T has the prior N(0, 0.5^2), so that few images move it little. It is kept only where the leave-one-out log loss
    is lower than at 1 by half its standard error. The order of the images does not matter. If all images are
    classified correctly, each counts as wrong by 1 / (N + 2), as in Platt 1999: else T would tend to 0. Of more than
    4 million logits, images are drawn.

    Args:
        logits: ``(N, C)``; rows that are not finite are left out.
        labels: ``(N,)`` class indices; multi-label: ``(N, C)``, 0 or 1.

    Returns:
        Multi-label: one temperature for all classes, and another for a class with at least 50 images with and without
        it where it is better in the same sense.
    """
    logits, labels = _usable(np.asarray(logits, np.float64), np.asarray(labels))
    multilabel = labels.ndim == 2
    loss = _binary(logits, labels) if multilabel else _categorical(logits, labels)
    count = len(logits)
    before = float(loss(0.0).loss.mean()) if count else 0.0
    if reason := _why_impossible(logits, labels):
        return Temperature(np.array(1.0), reason, count, before, before)
    if not multilabel and (logits.argmax(axis=1) == labels).all():
        shared = _fit(_categorical(logits, labels, 1 / (count + 2)))
    else:
        shared = _fit(loss)
    log_t, left_out = (shared.log_t, shared.left_out) if shared.is_better else (0.0, np.zeros((count, 1)))
    own = _fit_classes(logits, labels, log_t) if multilabel else {}
    if not (shared.is_better or own):
        return Temperature(np.array(1.0), "no other temperature is better by more than noise", count, before, before)
    values = np.full(logits.shape[1] if own else (), log_t)
    for index, fit in own.items():
        left_out = np.broadcast_to(left_out, logits.shape).copy()
        values[index], left_out[:, [index]] = fit.log_t, fit.left_out
    return Temperature(np.asarray(np.exp(values)), "", count, before, float(loss(left_out).loss.mean()))


def _usable(logits: Floats, labels: NDArray[np.integer | np.bool_]) -> tuple[Floats, NDArray[np.integer | np.bool_]]:
    """Leave out rows that are not finite, and draw from too many."""
    rows = np.flatnonzero(np.isfinite(logits).all(axis=1))
    most = max(_MOST_VALUES // logits.shape[1], 1)
    if len(rows) > most:
        rows = np.random.default_rng(0).choice(rows, most, replace=False)
    return logits[rows], labels[rows]


def _why_impossible(logits: Floats, labels: NDArray[np.integer | np.bool_]) -> str:
    if len(logits) < 2:
        return "there are too few images"
    if labels.ndim == 1 and (labels == labels[0]).all():
        return "all images have one class"
    if labels.ndim == 2 and (labels == labels.flat[0]).all():
        return f"{'all' if labels.flat[0] else 'no'} images have any class"
    return ""


def _fit(loss: _Loss, centre: float = 0.0) -> _Fit:
    """Fit log T, and compare its leave-one-out loss with that at the centre of its prior.

    Leaving out an image moves the optimum by one Newton step, ``slope / (curvature without the image)``.
    """

    def objective(log_t: float) -> float:
        return float(loss(log_t).loss.sum()) + ((log_t - centre) / _PRIOR) ** 2 / 2

    log_t = float(minimize_scalar(objective, bounds=(-_BOUND, _BOUND), method="bounded", options={"xatol": 1e-9}).x)
    at_best = loss(log_t)
    curvature = at_best.curve.sum() + _PRIOR**-2 - at_best.curve
    without = np.clip(log_t + at_best.slope / np.maximum(curvature, _PRIOR**-2), -_BOUND, _BOUND)[:, None]
    gain = loss(centre).loss - loss(without).loss
    noise = gain.std(ddof=1) / np.sqrt(len(gain))
    return _Fit(log_t, without, bool(gain.mean() > _MARGIN * noise))


def _fit_classes(logits: Floats, labels: NDArray[np.integer | np.bool_], centre: float) -> dict[int, _Fit]:
    """Return the fits of single classes that are better than the shared temperature."""
    positives = labels.sum(axis=0)
    enough = np.flatnonzero(np.minimum(positives, len(labels) - positives) >= MIN_POSITIVES).tolist()
    fits = {index: _fit(_binary(logits[:, [index]], labels[:, [index]]), centre) for index in enough}
    return {index: fit for index, fit in fits.items() if fit.is_better}


def _categorical(logits: Floats, labels: NDArray[np.integer | np.bool_], smoothing: float = 0.0) -> _Loss:
    """Return the loss of single-label images, whose targets give a share to the other classes."""
    targets = np.full(logits.shape, smoothing / max(logits.shape[1] - 1, 1))
    targets[np.arange(len(labels)), labels] = 1 - smoothing

    def terms(log_t: float | Floats) -> _Terms:
        scaled = logits / np.exp(log_t)
        log_probs = log_softmax(scaled, axis=1)
        probs = np.exp(log_probs)
        mean = (probs * scaled).sum(axis=1)
        slope = (targets * scaled).sum(axis=1) - mean
        variance = (probs * (scaled - mean[:, None]) ** 2).sum(axis=1)
        return _Terms(-(targets * log_probs).sum(axis=1), slope, variance - slope)

    return terms


def _binary(logits: Floats, labels: NDArray[np.integer | np.bool_]) -> _Loss:
    """Return the loss of multi-label images: the mean over their classes."""

    def terms(log_t: float | Floats) -> _Terms:
        scaled = logits / np.exp(log_t)
        probs = expit(scaled)
        loss = np.logaddexp(0, scaled) - labels * scaled
        slope = (labels - probs) * scaled
        curve = probs * (1 - probs) * scaled**2 - slope
        return _Terms(loss.mean(axis=1), slope.mean(axis=1), curve.mean(axis=1))

    return terms
