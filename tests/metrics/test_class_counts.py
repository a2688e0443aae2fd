"""The scores of classes are scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from imgcls.metrics.class_counts import ClassCounts, Confusion

NAMES = ["ant", "bee", "cat", "dog"]  # no image of the last


@pytest.mark.parametrize("multilabel", [False, True])
def test_scores_are_those_of_scikit_learn(multilabel: bool) -> None:
    generator = np.random.default_rng(0)
    if multilabel:
        labels, predicted = generator.integers(0, 2, (2, 60, 4))
        labels[:, 3] = 0
    else:
        labels, predicted = generator.integers(0, 3, 60), generator.integers(0, 4, 60)
    counts, other = ClassCounts(NAMES), ClassCounts(NAMES)
    counts.add(labels[:20], predicted[:20])
    counts.add(labels[20:45], predicted[20:45])
    other.add(labels[45:], predicted[45:])  # of another process
    counts.merge(other)
    expected = precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=np.nan)
    found = [[np.nan if value is None else value for value in scores[1:]] for scores in counts.scores()]
    np.testing.assert_allclose(found, np.transpose(expected))
    assert [scores.name for scores in counts.scores()] == NAMES


def test_pairs_are_ranked_by_their_images() -> None:
    counts = ClassCounts(NAMES)
    counts.add(np.array([0, 0, 0, 1, 2, 2]), np.array([1, 1, 0, 0, 2, 0]))
    assert counts.most_confused(2) == [Confusion("ant", "bee", 2, 3), Confusion("bee", "ant", 1, 1)]
