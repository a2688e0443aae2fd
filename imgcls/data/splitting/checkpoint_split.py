"""The split recorded in a checkpoint, by content hash: restored on resume and for evaluation."""

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, cast, get_args

import numpy as np

from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.split import Split
from imgcls.errors import ConfigError

Sample = tuple[str, str]  # content hash and class name; "" if unknown
_Value = TypeVar("_Value", bound=Hashable)

RECORDED = ("train", "validation")  # splits that a checkpoint records

_NEW, _MOVED, _COPIED = "new or changed", "in another class", "copied"


def recorded_kind(record: Mapping[str, Any]) -> HashKind:
    """Return the kind of the content hashes in a checkpoint; full in checkpoints that do not record it.

    Raises:
        ConfigError: If the kind is unknown.
    """
    kind = record.get("content_hash", "full")
    if kind not in get_args(HashKind):
        raise ConfigError(f"the checkpoint's content_hash must be full, sampled or none, got {kind!r}")
    return cast("HashKind", kind)


def recorded_hold_out(whole: Split, recorded: dict[str, list[str]]) -> dict[str, Split]:
    """Divide the training images as a checkpoint recorded it, by content hashes of its splits.

    Raises:
        ConfigError: If a held-out sample is missing, or none was held out.
    """
    if not recorded["validation"]:
        raise ConfigError(
            "validation: the checkpoint's run held out no image; give --data.dataset_classes.validation FOLDER"
        )
    fingerprints = whole.fingerprints
    held_out = Counter(recorded["validation"])
    lost = held_out - Counter(fingerprints)
    if lost:
        raise ConfigError(
            f"validation: {lost.total()} of the {held_out.total()} images that the checkpoint's run held out are "
            "missing or changed; give --data.dataset_classes.validation FOLDER"
        )
    return whole.divide(np.array(_first_matches(fingerprints, held_out), dtype=np.intp))


def copies_of_recorded(split: Split, recorded: dict[str, list[str]], kind: HashKind = "full") -> dict[str, list[str]]:
    """Return the paths of the samples that a checkpoint's train has, too, and those that its validation has.

    The content hashes, by split, are of that kind.
    """
    hashes = split.hashes(kind)
    known = {name: set(recorded[name]) for name in RECORDED}
    return {
        name: [split.path(index) for index, content in enumerate(hashes) if content in contents]
        for name, contents in known.items()
    }


def check_unchanged(
    whole: Split,
    recorded: dict[str, list[str]],
    labels: dict[str, list[str]] | None = None,
    splits: tuple[str, ...] = RECORDED,
) -> None:
    """Refuse to resume with other training images or labels than the checkpoint's.

    Args:
        whole: The training images.
        recorded: Content hashes by split.
        labels: Class names in the order of the hashes; None if the checkpoint has none.
        splits: The recorded splits that ``whole`` consists of.

    Raises:
        ConfigError: If an image is new, changed, copied, missing or in another class.
    """
    found = _samples(whole.fingerprints, whole.label_names if labels else None)
    known = [s for name in splits for s in _samples(recorded[name], labels[name] if labels else None)]
    changes = _changes(whole, found, known)
    missing = Counter(recorded["train"]) - Counter(whole.fingerprints)
    if any(changes.values()) or missing:
        more = [f", {len(changes[kind])} {kind} {changes[kind][:5]}" for kind in (_MOVED, _COPIED) if changes[kind]]
        raise ConfigError(
            f"train: the images differ from the checkpoint's: {len(changes[_NEW])} {_NEW} {changes[_NEW][:5]}, "
            f"{missing.total()} missing{''.join(more)}; restore them, or start a new run "
            "(experiment.only_weights_load: true keeps the weights)"
        )


def _samples(contents: list[str], labels: list[str] | None) -> list[Sample]:
    return list(zip(contents, labels or [""] * len(contents), strict=True))


def _changes(whole: Split, found: list[Sample], known: list[Sample]) -> dict[str, list[str]]:
    """Return the paths of samples that are not among the known ones, by kind of change."""
    unused = Counter(known) - Counter(found)
    moved = Counter(content for content, _ in unused.elements())
    contents = {content for content, _ in known}
    paths: dict[str, list[str]] = {_NEW: [], _MOVED: [], _COPIED: []}
    same = set(_first_matches(found, Counter(known)))
    for index in sorted(set(range(len(found))) - same):
        content = found[index][0]
        kind = _MOVED if moved[content] > 0 else _COPIED if content in contents else _NEW
        moved[content] -= 1
        paths[kind].append(whole.path(index))
    return paths


def _first_matches(values: list[_Value], wanted: Counter[_Value]) -> list[int]:
    """Return the indices of wanted values, the first ones where more are there than wanted."""
    left = wanted.copy()
    indices = []
    for index, value in enumerate(values):
        if left[value] > 0:
            left[value] -= 1
            indices.append(index)
    return indices
