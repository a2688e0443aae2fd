"""Reports about the splits of a run: the log lines of a fit, ``splits.csv`` and ``data.json``."""

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd

from imgcls.data.splitting.splitter import Splitter
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import listed

log = logging.getLogger(__name__)


def summary(splitter: Splitter) -> str:
    """Return two lines: the classes, and the number of images of each split of a fit."""
    counts = {name: _count(splitter, name) for name in splitter.fit_splits}
    texts = [f"{count} {name}" for name, count in counts.items()]
    if splitter.datasets["validation"] is None and not splitter.rules.train_on_validation:
        fold, total = splitter.rules.fold, counts["train"] + counts["validation"]
        part = f"fold {fold}" if fold else f"{100 * counts['validation'] / total:.0f} % held out"
        texts[1] += f" ({part} of train)"
    classes = f"{len(splitter.class_names)} classes: {listed(splitter.class_names)}"
    return f"{classes}\nImages: {', '.join(texts)}"


def warn_missing_classes(splitter: Splitter, name: str) -> None:
    """Warn of classes without images in a dataset; those missing in a held-out part were reported when it was made."""
    data = splitter.datasets[name]
    joined = splitter.stage == "fit" and splitter.rules.train_on_validation and name == "validation"
    if data is None or isinstance(data, StreamImageDataset) or joined:
        return
    present = splitter.split(name).classes()
    if name == "train" and splitter.datasets["validation"] is None:
        present |= splitter.split("validation").classes()
    missing = [label for index, label in enumerate(splitter.class_names) if index not in present]
    if missing:
        count = f"{len(missing)} class{'es' * (len(missing) > 1)} ({listed(missing)})"
        effect = (
            "it cannot be learned"
            if name == "train"
            else "macro averages count such a class as 0 where it is predicted, and skip it elsewhere"
        )
        log.warning("%s has no images of %s: %s", name.capitalize(), count, effect)


def split_table(splitter: Splitter, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per sample: path, label, split, content (hash of the file or the pixels).

    Lists the named splits; by default those of a fit.
    """
    splits = {name: splitter.split(name) for name in names or splitter.fit_splits}
    contents = {name: "" if splitter.kind == "none" else part.fingerprints for name, part in splits.items()}
    tables = [part.table().assign(split=name, content=contents[name]) for name, part in splits.items()]
    return pd.concat(tables, ignore_index=True)


def file_report(splitter: Splitter) -> dict[str, Any]:
    """Return the number of used images, and each unused file with the reason."""
    bad = {path: reason for reasons in splitter.bad_images.found.values() for path, reason in reasons.items()}
    used = [data for name in ("train", "validation", "test") if (data := splitter.datasets[name]) is not None]
    ignored = {path: rule for data in used for path, rule in data.ignored.items()}
    unused = [{"path": path, "reason": reason} for path, reason in (bad | ignored).items()]
    # str: a user's class may have Path objects; a loop: pandas refuses names that are not UTF-8
    used_count = sum(str(path) not in bad for path in split_table(splitter)["path"])
    return {"used": used_count, "content_hash": splitter.kind, "unused": unused}


def _count(splitter: Splitter, name: str) -> int:
    split = splitter.split(name)
    return split.data.length if isinstance(split.data, StreamImageDataset) else len(split)
