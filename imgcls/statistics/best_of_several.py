"""The best of several models, chosen by the same images that score it: what to expect on others."""

from collections.abc import Sequence

import numpy as np

from imgcls.statistics.bootstrap import Statistic, resamples, weighted_statistic
from imgcls.statistics.weighted import Floats, Labels


def expected_of_best(
    statistic: Statistic,
    labels: Labels,
    probs: Sequence[Floats],
    *,
    higher_is_better: bool = True,
    n_resamples: int = 500,
    seed: int = 0,
) -> float:
    """Return the score to expect, on other images, of the model that is the best of several on these.

    In each resample the best model is chosen, and scored on the images that the resample lacks (Tsamardinos et al.
    2018, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation").

    Args:
        statistic: As of :func:`imgcls.statistics.bootstrap.bca_interval`.
        labels: ``(N,)`` classes, or multi-label ``(N, C)`` of 0 and 1.
        probs: ``(N, C)`` probabilities of each model.
        higher_is_better: Whether the largest score is the best.
        n_resamples: Number of resamples.
        seed: Of the resamples.
    """
    runs = [weighted_statistic(statistic, labels, each) for each in probs]
    scores = []
    for block in resamples(len(labels), None, n_resamples, seed):
        usable = block[(block == 0).any(axis=1)]
        inside, outside = (np.stack([run(each) for run in runs], axis=1) for each in (usable, (usable == 0) * 1.0))
        best = inside.argmax(axis=1) if higher_is_better else inside.argmin(axis=1)
        scores.append(outside[np.arange(len(outside)), best])
    return float(np.nanmean(np.concatenate(scores)))
