"""Class names of a training set, and labels as class indices."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from imgcls.data.splitting.split import Labels
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.folder_scan import subfolders
from imgcls.datasets.labels import fault_in, look_alikes, multi_hot, names_in, natural_order
from imgcls.datasets.split_folders import SPLIT_FOLDERS
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError, listed

log = logging.getLogger(__name__)


def class_names_of(data: ImageDataset) -> list[str]:
    """Return the classes of a training set in natural order; those of a stream in the given order.

    Raises:
        ConfigError: If there are fewer than two, one is blank, a sample has none, or they are splits.
    """
    if isinstance(data, StreamImageDataset):
        return list(data.class_names)
    labels = _checked_labels(data, "train")
    names = sorted(_names_in(labels), key=natural_order)
    splits = {SPLIT_FOLDERS[name.lower()]: name for name in names if name.lower() in SPLIT_FOLDERS}
    if "train" in splits and len(splits) > 1:
        others = [f"--data.dataset_classes.{split} {data}/{name}" for split, name in splits.items() if split != "train"]
        raise ConfigError(
            f"train: {data} contains splits instead of classes: {listed(names)}; give each split: "
            f"--data.dataset_classes.train {data}/{splits['train']} {' '.join(others)}"
        )
    if blank := [name for name in names if not name.strip()]:
        raise ConfigError(f"train: class names must not be blank, got {blank[0]!r} in {data}")
    for group in look_alikes(names):
        log.warning("train: classes that differ only in case, blanks or Unicode form: %s", listed(group))
    if len(names) < 2:
        found = f"Only one class ({names[0]!r})" if names else "No label"
        needed = "classes" if _are_tuples(labels) else "class folders"
        raise ConfigError(f"train: {found} found in {data}; at least two {needed} are needed")
    return names


def is_multilabel(datasets: Mapping[str, ImageDataset]) -> bool:
    """Whether the labelled datasets of the splits are multi-label.

    Raises:
        ConfigError: If only some of them are.
    """
    kinds = {
        name: "label" in data.samples and _are_tuples(data.samples["label"])  # a stream has no rows
        for name, data in datasets.items()
    }
    if len(set(kinds.values())) > 1:
        multi, single = (", ".join(name for name, kind in kinds.items() if kind == wanted) for wanted in (True, False))
        raise ConfigError(
            f"{multi}: multi-label, but {single}: one label per image; set label_separator for all or none of them "
            "(imgcls.CsvImageDataset)"
        )
    return any(kinds.values())


def labels_of(data: ImageDataset, class_names: list[str], split: str) -> Labels:
    """Convert the labels of a dataset to class indices, or to 0 and 1 per class in a multi-label dataset.

    Raises:
        ConfigError: If there is no sample, or a label is not among the classes.
    """
    labels = _checked_labels(data, split)
    refuse_unknown(_names_in(labels), class_names, split)
    indices = {name: index for index, name in enumerate(class_names)}
    if _are_tuples(labels):
        return multi_hot(list(labels), indices)
    return np.array([indices[str(label)] for label in labels], dtype=np.int64)


def refuse_unknown(names: Iterable[str], class_names: list[str], split: str) -> None:
    """Refuse classes of a split that are not among the model's.

    Raises:
        ConfigError: Names them.
    """
    if unknown := sorted(set(names) - set(class_names), key=natural_order):
        alike = [" and ".join(map(ascii, group)) for group in look_alikes([*unknown, *class_names])]
        hint = f"; {alike[0]} differ only in case, blanks or Unicode form" if alike else ""
        raise ConfigError(
            f"{split}: classes {listed(unknown)} are not among the model's classes, {listed(class_names)}{hint}"
        )


def check_paths(data: ImageDataset, split: str) -> None:
    """Refuse a dataset without samples, or with repeated paths.

    Raises:
        ConfigError: Names the missing column or the first repeated path.
    """
    _require_column(data, split, "path")
    paths = data.samples["path"]
    if paths.duplicated().any():
        repeated = paths[paths.duplicated()].iloc[0]
        raise ConfigError(f"{split}: 'path' must be unique, but {data} lists {repeated!r} twice")
    refuse_empty(data, split)


def refuse_empty(data: ImageDataset, split: str) -> None:
    """Refuse a dataset without samples.

    Raises:
        ConfigError: Gives the rules by which files were ignored.
    """
    if data.samples.empty:
        rules = Counter(data.ignored.values())
        ignored = "; ".join(f"{count} ignored: {rule}" for rule, count in rules.items())
        raise ConfigError(f"{split}: no image in {data}{f' ({ignored})' if ignored else ''}")


def _checked_labels(data: ImageDataset, split: str) -> pd.Series:
    samples = data.samples
    _require_column(data, split, "label")
    check_paths(data, split)
    refuse_without_class_folders(data, split)
    unlabelled = samples["label"].isna() | (samples["label"] == "")
    if unlabelled.any():
        path = samples["path"][unlabelled].iloc[0]
        raise ConfigError(f"{split}: {path!r} has no label; add it, or set the column of labels")
    _check_tuples(samples, f"{split}: {data}")
    return samples["label"]


def refuse_without_class_folders(data: ImageDataset, split: str) -> None:
    """Refuse a folder whose images are in no sub-folders.

    Raises:
        ConfigError: Names the folder.
    """
    if isinstance(data, FolderImageDataset) and (data.samples["label"].isna() | (data.samples["label"] == "")).any():
        hint = "; expected one per class; for images without labels, type: imgcls predict RUN IMAGES"
        hint = _parent_hint(data.root) if split == "train" else hint
        raise ConfigError(f"{split}: {data} contains images but no class folders{hint}")


def _parent_hint(root: str) -> str:
    parent = os.path.dirname(os.path.abspath(root))
    return f"; did you mean its parent {parent!r}?" if len(subfolders(parent)) > 1 else "; expected one per class"


def _check_tuples(samples: pd.DataFrame, where: str) -> None:
    """Refuse labels that are neither all texts nor all tuples of names."""
    labels = samples["label"]
    if _are_texts(labels):
        return
    multilabel = _are_tuples(labels)
    for path, label in zip(samples["path"], labels, strict=True):
        if multilabel != isinstance(label, tuple) or isinstance(label, (list, set, frozenset, np.ndarray)):
            raise ConfigError(f"{where}: labels must all be names, or all tuples of names; {path!r} has {label!r}")
        if multilabel and (fault := fault_in(names_in(label))):
            raise ConfigError(f"{where}: the label of {path!r} has {fault}: {label!r}")


def _require_column(data: ImageDataset, split: str, name: str) -> None:
    if name not in data.samples:
        raise ConfigError(f"{split}: the samples of {data} have no column {name!r}")


def _are_texts(labels: pd.Series) -> bool:
    """Whether all labels are texts; pandas is faster than a loop, which takes 0.5 s per million."""
    return pd.api.types.infer_dtype(labels) == "string"


def _are_tuples(labels: pd.Series) -> bool:
    return not _are_texts(labels) and any(isinstance(label, tuple) for label in labels)


def _names_in(labels: pd.Series) -> set[str]:
    if _are_texts(labels):
        return set(map(str, labels.unique()))
    return {name for label in labels for name in names_in(label)}
