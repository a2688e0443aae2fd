"""Hold out whole groups so that the shares of all classes, and of all samples, are near to a given share.

scikit-learn's StratifiedGroupKFold divides groups into n equal folds only: the nearest it has to 0.4 is 0.33 or 0.5.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, hstack

from imgcls.data.splitting.split import Labels

_TOLERANCE = 1e-12  # rounding errors must not move a group back and forth


def hold_out_groups(labels: Labels, groups: NDArray[np.intp], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose the groups to hold out; neither side is empty.

    Args:
        labels: Class index of each sample, ``(samples,)``.
        groups: Group of each sample, from 0, ``(samples,)``.
        share: Share of the samples to hold out, 0 to 1.
        seed: The same seed and groups give the same choice.

    Returns:
        Whether each group is held out, ``(groups,)``.
    """
    # sparse: a dense table of many groups and classes took gigabytes
    counts = coo_array((np.ones(len(labels)), (groups, labels))).tocsr()
    held_out = _nearest(counts, share, seed)
    for side in (False, True):
        if not (held_out == side).any():
            held_out[_smallest(counts)] = side
    return held_out


def _nearest(counts: csr_array, share: float, seed: int) -> NDArray[np.bool_]:
    """Move groups in random order between the sides while that brings the shares nearer to the wanted one.

    The share of all samples has twice the weight of all classes together: if a group is a large part of its class, some
    classes must be held out more than others. Iterative stratification does not reconsider a choice: of a few groups
    with mixed classes it holds out 0.08 too much on average.
    """
    groups, classes = counts.shape
    table = hstack([counts, counts.sum(axis=1)[:, None]]).tocsr()
    weights = np.append(np.ones(classes), math.sqrt(2 * classes)) / np.maximum(table.sum(axis=0), 1)
    shares = np.split(table.data * weights[table.indices], table.indptr[1:-1])  # of each group, in its columns
    columns = np.split(table.indices, table.indptr[1:-1])
    held_out = np.zeros(groups, dtype=bool)
    order = np.random.default_rng(seed).permutation(groups)
    error = -share * weights * table.sum(axis=0)
    before = np.inf
    while error @ error < before:
        before = float(error @ error)
        for group in order:
            step = -shares[group] if held_out[group] else shares[group]
            if step @ (2 * error[columns[group]] + step) < -_TOLERANCE:
                held_out[group] = not held_out[group]
                error[columns[group]] += step
    return held_out


def _smallest(counts: csr_array) -> int:
    """Return the smallest group, preferably one that does not contain all samples of a class."""
    found = counts.tocoo()
    alone = np.zeros(counts.shape[0], dtype=bool)
    alone[found.row[found.data == counts.sum(axis=0)[found.col]]] = True
    return int(np.lexsort((counts.sum(axis=1), alone))[0])
