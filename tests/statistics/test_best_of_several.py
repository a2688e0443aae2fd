"""The best of several equal models."""

import numpy as np
from scipy.stats import norm

from imgcls.statistics.best_of_several import expected_of_best
from imgcls.statistics.decisions import accuracy


def test_the_best_of_equal_models_is_not_better() -> None:
    found, seen = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(1.6, 1.2, (300, 1))
        hits = difficulty + rng.normal(0, 0.7, (300, 15)) > 0
        probs = [np.where(each[:, None], [[0.9, 0.1]], [[0.1, 0.9]]) for each in hits.T]
        seen.append(hits.mean(axis=0).max())
        found.append(expected_of_best(accuracy, np.zeros(300, np.int64), probs, n_resamples=100, seed=seed))
    truth = norm.cdf(1.6 / np.hypot(1.2, 0.7))
    assert np.mean(seen) - truth > 0.015
    assert abs(np.mean(found) - truth) < 0.01
