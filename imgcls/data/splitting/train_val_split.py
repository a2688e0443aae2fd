"""What is held out of train for validation: a stratified part, copies and groups whole."""

import logging
import math
import re
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, hstack
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from imgcls.data.splitting.multilabel_stratify import stratify
from imgcls.data.splitting.split import Labels, Split
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

_HALF = 0.5  # a share that is no more a part held out
_TOO_LITTLE = 1e-12  # to count: rounding must not move a unit to and fro


class Fold(NamedTuple):
    """One part of a cross-validation.

    Args:
        number: Which part is validated, 1 to ``parts``.
        parts: How many parts there are.
    """

    number: int
    parts: int

    @classmethod
    def read(cls, text: str) -> "Fold":
        """Read ``k/n``.

        Raises:
            ConfigError: If it is no such text.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        fold = cls(*map(int, match.groups())) if match else None
        if fold is None or not 1 <= fold.number <= fold.parts or fold.parts < 2:
            raise ConfigError(f"data.init_args.fold: {text!r}; write k/n, such as 1/5 for the first of five folds")
        return fold

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"


def hold_out(whole: Split, share: float, seed: int, fold: Fold | None = None) -> dict[str, Split]:
    """Divide a split into train and validation, stratified by label; by each of them where a sample has several.

    Copies of an image, and the samples of a group, stay on one side; only where there are too few distinct images for
    that, copies are divided like other images, which is said. What is held out follows from contents, labels,
    groups and seed alone: names, folders and their order do not count. An image that is alone in its class stays in
    train, unless its fold is held out.

    Args:
        whole: The labelled samples.
        share: Share of the samples that goes to validation, 0..1; where there are groups of samples with one label
            each, one group at least.
        seed: The same seed and samples give the same split.
        fold: The part of a cross-validation that is held out, in place of ``share``.

    Raises:
        ConfigError: If so much cannot be held out.
    """
    contents = whole.fingerprints
    try:
        held = _choose(np.array(contents), whole, share, seed, fold)
    except ValueError as error:
        if len(set(contents)) == len(contents) or whole.groups is not None or isinstance(error, _TooSmallError):
            raise _impossible(whole, share, fold, error) from error
        held = _choose_copies(contents, whole, share, seed, fold)
    return whole.divide(np.flatnonzero(held))


class _TooSmallError(ValueError):
    """A share that does not hold an image of each class, though a larger one would."""


def _choose(contents: NDArray[Any], whole: Split, share: float, seed: int, fold: Fold | None) -> NDArray[np.bool_]:
    if whole.multilabel:
        held = _choose_several(contents, whole, share, seed, fold)
    elif whole.groups is None:
        held = _choose_images(contents, whole.label_array, share, seed, fold)
    else:
        held = _choose_groups(contents, whole.label_array, whole.groups, share, seed, fold)
    if held.all() or not held.any():
        units = len(set(contents if whole.groups is None else whole.groups))
        raise ValueError(f"one side would be empty: there are {units} {'images' if whole.groups is None else 'groups'}")
    return held


def _choose_copies(contents: list[str], whole: Split, share: float, seed: int, fold: Fold | None) -> NDArray[np.bool_]:
    try:
        held = _choose(np.array(_numbered(contents)), whole, share, seed, fold)
    except ValueError as error:
        raise _impossible(whole, share, fold, error) from error
    log.warning(
        "train: %d images, but only %d are distinct: copies of an image are on both sides of the split, and validation "
        "says little",
        len(contents),
        len(set(contents)),
    )
    return held


def _impossible(whole: Split, share: float, fold: Fold | None, error: ValueError) -> ConfigError:
    return ConfigError(
        f"data.init_args.{'fold' if fold else 'validation_split'}: {fold or share} of {len(whole)} images in "
        f"{len(whole.classes())} classes cannot be held out ({error}); change it, or give "
        "dataset_classes.validation"
    )


def _numbered(contents: list[str]) -> list[str]:
    """Tell copies apart."""
    seen: Counter[str] = Counter()
    names = []
    for content in contents:
        names.append(f"{content} {seen[content]}")
        seen[content] += 1
    return names


def _choose_images(
    contents: NDArray[Any], labels: Labels, share: float, seed: int, fold: Fold | None
) -> NDArray[np.bool_]:
    """Choose among the contents, in their own order; copies go where the content goes."""
    distinct, content = np.unique(contents, return_inverse=True)
    content_labels = np.full(len(distinct), labels.max(initial=0))
    np.minimum.at(content_labels, content, labels)
    chosen = np.zeros(len(distinct), dtype=bool)
    if fold is None:
        counts = np.bincount(content_labels)
        places = np.flatnonzero(counts[content_labels] > 1)
        if not len(places):
            raise ValueError("each class has a single image")
        _refuse_too_small(share, len(places), int((counts > 1).sum()))
        chosen[train_test_split(places, test_size=share, random_state=seed, stratify=content_labels[places])[1]] = True
    else:
        folds = _folds(StratifiedKFold(fold.parts, shuffle=True, random_state=seed), content_labels)
        chosen[folds[fold.number - 1]] = True
    return np.asarray(chosen[content])


def _refuse_too_small(share: float, images: int, classes: int) -> None:
    least = math.ceil(100 * classes / max(images, 1)) / 100
    if math.ceil(share * images) < classes and least <= _HALF:
        raise _TooSmallError(f"one image of each class takes {least}")


def _choose_groups(
    contents: NDArray[Any], labels: Labels, groups: NDArray[Any], share: float, seed: int, fold: Fold | None
) -> NDArray[np.bool_]:
    """Choose among groups; the classes' shares come out as even as the groups allow."""
    order = np.argsort(contents, kind="stable")
    units, _ = pd.factorize(_joined(contents, groups)[order])
    held = np.zeros(len(labels), dtype=bool)
    if fold is None:
        held[order] = _share_of_units(labels[order], units, share, seed)[units]
    else:
        folds = _folds(StratifiedGroupKFold(fold.parts, shuffle=True, random_state=seed), labels[order], units)
        held[order[folds[fold.number - 1]]] = True
    return held


def _share_of_units(labels: Labels, units: NDArray[np.intp], share: float, seed: int) -> NDArray[np.bool_]:
    """Return whether each unit is held out; a side that would be empty gets one."""
    counts = coo_array((np.ones(len(labels)), (units, labels))).tocsr()  # dense, many groups and classes took gigabytes
    held = _nearest(counts, share, seed)
    for side in (False, True):
        if not (held == side).any():
            held[_least(counts)] = side
    return held


def _nearest(counts: csr_array, share: float, seed: int) -> NDArray[np.bool_]:
    """Hold out units in turn by lot, and take them back, while that brings the shares of each class and of all nearer.

    The share of all counts as much as that of all classes twice: where a unit is a large part of its class, some
    classes must be held out more than others.
    ``stratify`` does not look back: of few groups, whose classes are mixed, it holds out 0.08 too much on average.
    """
    units, classes = counts.shape
    table = hstack([counts, counts.sum(axis=1)[:, None]]).tocsr()
    weights = np.append(np.ones(classes), math.sqrt(2 * classes)) / np.maximum(table.sum(axis=0), 1)
    shares = np.split(table.data * weights[table.indices], table.indptr[1:-1])  # of each unit, in its columns
    columns = np.split(table.indices, table.indptr[1:-1])
    held = np.zeros(units, dtype=bool)
    order = np.random.default_rng(seed).permutation(units)
    off = -share * weights * table.sum(axis=0)
    before = np.inf
    while off @ off < before:
        before = float(off @ off)
        for unit in order:
            step = -shares[unit] if held[unit] else shares[unit]
            if step @ (2 * off[columns[unit]] + step) < -_TOO_LITTLE:
                held[unit] = not held[unit]
                off[columns[unit]] += step
    return held


def _least(counts: csr_array) -> int:
    """Return the smallest unit, of those that do not hold a class alone where there are such."""
    found = counts.tocoo()
    alone = np.zeros(counts.shape[0], dtype=bool)
    alone[found.row[found.data == counts.sum(axis=0)[found.col]]] = True
    return int(np.lexsort((counts.sum(axis=1), alone))[0])


def _choose_several(
    contents: NDArray[Any], whole: Split, share: float, seed: int, fold: Fold | None
) -> NDArray[np.bool_]:
    """Choose among contents or groups by all labels of their samples."""
    names = contents if whole.groups is None else _joined(contents, whole.groups)
    order = np.argsort(contents, kind="stable")
    units, distinct = pd.factorize(names[order])
    if fold is not None and fold.parts > len(distinct):
        raise ValueError(f"there are {len(distinct)} {'images' if whole.groups is None else 'groups'}")
    shares = [1 - share, share] if fold is None else [1 / fold.parts] * fold.parts
    parts = stratify(whole.label_array[order].astype(np.uint8), units, shares, seed)
    held = np.zeros(len(order), dtype=bool)
    held[order] = parts[units] == (1 if fold is None else fold.number - 1)
    return held


def _joined(contents: NDArray[Any], groups: NDArray[Any]) -> NDArray[np.intp]:
    """Number the groups, those that share an image as one."""
    content, distinct = pd.factorize(contents)
    group, names = pd.factorize(groups)
    size = len(distinct) + len(names)
    links = coo_array((np.ones(len(content)), (content, len(distinct) + group)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][content])


def _folds(
    splitter: StratifiedKFold | StratifiedGroupKFold, labels: Labels, units: NDArray[np.intp] | None = None
) -> list[NDArray[np.intp]]:
    with warnings.catch_warnings(action="ignore"):  # of classes that have fewer members than there are parts
        return [held for _, held in splitter.split(labels, labels, units)]
