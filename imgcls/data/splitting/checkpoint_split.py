"""The split that a checkpoint recorded, by content: kept when a run goes on, and when the model is evaluated."""

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

import numpy as np

from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.split import Split
from imgcls.errors import ConfigError

Sample = tuple[str, str]  # content hash, class name; empty where that is not known
_Item = TypeVar("_Item", bound=Hashable)

KNOWN = ("train", "validation")  # the splits of a record

_NEW, _MOVED, _COPIED = "new or changed", "in another class", "copied"


def recorded_hold_out(whole: Split, recorded: dict[str, list[str]]) -> dict[str, Split]:
    """Divide a split as a checkpoint recorded it, by content.

    Raises:
        ConfigError: If a held-out sample of the record is gone, or nothing was held out.
    """
    if not recorded["validation"]:
        raise ConfigError(
            "validation: the checkpoint's run held no image out; give --data.dataset_classes.validation FOLDER"
        )
    fingerprints = whole.fingerprints
    held_out = Counter(recorded["validation"])
    lost = held_out - Counter(fingerprints)
    if lost:
        raise ConfigError(
            f"validation: {lost.total()} of the {held_out.total()} images that the checkpoint's run held out are gone "
            "or changed; give --data.dataset_classes.validation FOLDER"
        )
    return whole.divide(np.array(_first_of(fingerprints, held_out), dtype=np.intp))


def trained_on(split: Split, recorded: dict[str, list[str]], kind: HashKind = "full") -> list[str]:
    """Return the paths of the samples that a checkpoint was trained on, whose hashes are of a kind."""
    trained = set(recorded["train"])
    return [split.path(place) for place, content in enumerate(split.hashes(kind)) if content in trained]


def check_unchanged(
    whole: Split,
    recorded: dict[str, list[str]],
    labels: dict[str, list[str]] | None = None,
    splits: tuple[str, ...] = KNOWN,
) -> None:
    """Refuse to go on with other training images, or other classes of them, than those of the checkpoint.

    Args:
        whole: The training images.
        recorded: Content hashes by split.
        labels: Class names in the order of the hashes; None where a checkpoint has none.
        splits: The recorded splits that the training images are of, before any is held out.

    Raises:
        ConfigError: If an image is new, changed, copied, gone or in another class.
    """
    found = _samples(whole.fingerprints, whole.label_names if labels else None)
    known = [s for name in splits for s in _samples(recorded[name], labels[name] if labels else None)]
    said = _differences(whole, found, known)
    gone = Counter(recorded["train"]) - Counter(whole.fingerprints)
    if any(said.values()) or gone:
        more = [f", {len(said[kind])} {kind} {said[kind][:5]}" for kind in (_MOVED, _COPIED) if said[kind]]
        raise ConfigError(
            f"train: the images are not those of the checkpoint: {len(said[_NEW])} {_NEW} {said[_NEW][:5]}, "
            f"{gone.total()} gone{''.join(more)}; restore them, or start a new run (experiment.only_weights_load: true "
            "keeps the weights)"
        )


def _samples(contents: list[str], labels: list[str] | None) -> list[Sample]:
    return list(zip(contents, labels or [""] * len(contents), strict=True))


def _differences(whole: Split, found: list[Sample], known: list[Sample]) -> dict[str, list[str]]:
    """Return the paths of samples that were not known: in what way -> paths."""
    unused = Counter(known) - Counter(found)
    moved = Counter(content for content, _ in unused.elements())
    contents = {content for content, _ in known}
    paths: dict[str, list[str]] = {_NEW: [], _MOVED: [], _COPIED: []}
    same = set(_first_of(found, Counter(known)))
    for place in sorted(set(range(len(found))) - same):
        content = found[place][0]
        kind = _MOVED if moved[content] > 0 else _COPIED if content in contents else _NEW
        moved[content] -= 1
        paths[kind].append(whole.path(place))
    return paths


def _first_of(items: list[_Item], wanted: Counter[_Item]) -> list[int]:
    """Return the places of the items that are wanted, the first ones where there are more."""
    left = wanted.copy()
    places = []
    for place, item in enumerate(items):
        if left[item] > 0:
            left[item] -= 1
            places.append(place)
    return places
