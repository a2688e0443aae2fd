"""Hold out a part of the training images for validation: stratified, with copies and groups kept together."""

import logging
import math
import re
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from imgcls.data.splitting.group_holdout import hold_out_groups
from imgcls.data.splitting.multilabel_stratify import stratify
from imgcls.data.splitting.split import Labels, Split
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

_LARGEST_HINT = 0.5  # a larger share is not suggested for validation


class Fold(NamedTuple):
    """The fold of a cross-validation to validate on: its number, from 1, and the number of folds."""

    number: int
    folds: int

    @classmethod
    def read(cls, text: str) -> "Fold":
        """Read ``k/n``.

        Raises:
            ConfigError: If the text has another form.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        fold = cls(*map(int, match.groups())) if match else None
        if fold is None or not 1 <= fold.number <= fold.folds or fold.folds < 2:
            raise ConfigError(
                f"data.init_args.fold must be k/n, for example 1/5 for the first of five folds, got {text!r}"
            )
        return fold

    def __str__(self) -> str:
        return f"{self.number}/{self.folds}"


def hold_out(whole: Split, share: float, seed: int, fold: Fold | None = None) -> dict[str, Split]:
    """Divide a split into train and validation, stratified by label; in a multi-label dataset by each label.

    Copies of an image, and the samples of a group, stay together; if there are too few distinct images for that, copies
    are divided like other images, with a warning. The choice depends on contents, labels, groups and seed, not on
    names, folders or their order. The only image of a class stays in train, unless its fold is held out.

    Args:
        whole: The labelled samples.
        share: Share of the samples for validation, 0..1; at least one group if there are groups and single labels.
        seed: The same seed and samples give the same split.
        fold: The fold of a cross-validation to hold out, instead of ``share``.

    Returns:
        ``train`` and ``validation``.

    Raises:
        ConfigError: If such a part cannot be held out.
    """
    contents = whole.fingerprints
    try:
        held_out = _choose(np.array(contents), whole, share, seed, fold)
    except ValueError as error:
        if len(set(contents)) == len(contents) or whole.groups is not None or isinstance(error, _TooSmallError):
            raise _impossible(whole, share, fold, error) from error
        held_out = _choose_copies(contents, whole, share, seed, fold)
    return whole.divide(np.flatnonzero(held_out))


class _TooSmallError(ValueError):
    """A share that does not contain an image of each class, although a larger one would."""


def _choose(contents: NDArray[Any], whole: Split, share: float, seed: int, fold: Fold | None) -> NDArray[np.bool_]:
    if whole.multilabel:
        held_out = _choose_multilabel(contents, whole, share, seed, fold)
    elif whole.groups is None:
        held_out = _choose_images(contents, whole.label_array, share, seed, fold)
    else:
        held_out = _choose_groups(contents, whole.label_array, whole.groups, share, seed, fold)
    if held_out.all() or not held_out.any():
        units = len(set(contents if whole.groups is None else whole.groups))
        raise ValueError(f"one side would be empty: there are {units} {'images' if whole.groups is None else 'groups'}")
    return held_out


def _choose_copies(contents: list[str], whole: Split, share: float, seed: int, fold: Fold | None) -> NDArray[np.bool_]:
    """Divide copies of an image like other images."""
    copies: Counter[str] = Counter()
    unique = []
    for content in contents:
        unique.append(f"{content} {copies[content]}")
        copies[content] += 1
    try:
        held_out = _choose(np.array(unique), whole, share, seed, fold)
    except ValueError as error:
        raise _impossible(whole, share, fold, error) from error
    log.warning(
        "train: only %d of %d images are distinct: copies of an image are in both train and validation, so validation "
        "metrics will be too high",
        len(copies),
        len(contents),
    )
    return held_out


def _impossible(whole: Split, share: float, fold: Fold | None, error: ValueError) -> ConfigError:
    return ConfigError(
        f"data.init_args.{'fold' if fold else 'validation_split'}: {fold or share} of {len(whole)} images in "
        f"{len(whole.classes())} classes cannot be held out ({error}); change it, or give dataset_classes.validation"
    )


def _choose_images(
    contents: NDArray[Any], labels: Labels, share: float, seed: int, fold: Fold | None
) -> NDArray[np.bool_]:
    """Choose among the distinct contents, in their sorted order; copies are held out together."""
    distinct, content = np.unique(contents, return_inverse=True)
    content_labels = np.full(len(distinct), labels.max(initial=0))
    np.minimum.at(content_labels, content, labels)
    chosen = np.zeros(len(distinct), dtype=bool)
    if fold is None:
        counts = np.bincount(content_labels)
        candidates = np.flatnonzero(counts[content_labels] > 1)
        if not len(candidates):
            raise ValueError("each class has a single image")
        _refuse_too_small(share, len(candidates), int((counts > 1).sum()))
        strata = content_labels[candidates]
        chosen[train_test_split(candidates, test_size=share, random_state=seed, stratify=strata)[1]] = True
    else:
        folds = _folds(StratifiedKFold(fold.folds, shuffle=True, random_state=seed), content_labels)
        chosen[folds[fold.number - 1]] = True
    return np.asarray(chosen[content])


def _refuse_too_small(share: float, images: int, classes: int) -> None:
    least = math.ceil(100 * classes / max(images, 1)) / 100
    if math.ceil(share * images) < classes and least <= _LARGEST_HINT:
        raise _TooSmallError(f"one image of each class takes {least}")


def _choose_groups(
    contents: NDArray[Any], labels: Labels, groups: NDArray[Any], share: float, seed: int, fold: Fold | None
) -> NDArray[np.bool_]:
    """Choose among groups, with each class as near to its share as the groups allow."""
    order = np.argsort(contents, kind="stable")
    units, _ = pd.factorize(_joined(contents, groups)[order])
    held_out = np.zeros(len(labels), dtype=bool)
    if fold is None:
        held_out[order] = hold_out_groups(labels[order], units, share, seed)[units]
    else:
        folds = _folds(StratifiedGroupKFold(fold.folds, shuffle=True, random_state=seed), labels[order], units)
        held_out[order[folds[fold.number - 1]]] = True
    return held_out


def _choose_multilabel(
    contents: NDArray[Any], whole: Split, share: float, seed: int, fold: Fold | None
) -> NDArray[np.bool_]:
    """Choose among contents or groups by all labels of their samples."""
    names = contents if whole.groups is None else _joined(contents, whole.groups)
    order = np.argsort(contents, kind="stable")
    units, distinct = pd.factorize(names[order])
    if fold is not None and fold.folds > len(distinct):
        raise ValueError(f"there are {len(distinct)} {'images' if whole.groups is None else 'groups'}")
    shares = [1 - share, share] if fold is None else [1 / fold.folds] * fold.folds
    parts = stratify(whole.label_array[order].astype(np.uint8), units, shares, seed)
    held_out = np.zeros(len(order), dtype=bool)
    held_out[order] = parts[units] == (1 if fold is None else fold.number - 1)
    return held_out


def _joined(contents: NDArray[Any], groups: NDArray[Any]) -> NDArray[np.intp]:
    """Return the number of each sample's group, where groups that share an image are one."""
    content, distinct = pd.factorize(contents)
    group, names = pd.factorize(groups)
    size = len(distinct) + len(names)
    links = coo_array((np.ones(len(content)), (content, len(distinct) + group)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][content])


def _folds(
    splitter: StratifiedKFold | StratifiedGroupKFold, labels: Labels, units: NDArray[np.intp] | None = None
) -> list[NDArray[np.intp]]:
    with warnings.catch_warnings(action="ignore"):  # about classes with fewer members than folds
        return [held_out for _, held_out in splitter.split(labels, labels, units)]
