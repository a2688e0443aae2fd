"""The key that was probably meant by one that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from imgcls.errors import join_keys

_COMMON_NAMES = {  # what other programs call it -> key
    "batch": "data.batch_size",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "image_size": "data.augmentations.train",
    "imgsz": "data.augmentations.train",
    "learning_rate": "model.optimizer_config.lr",
    "name": "experiment.custom_folder_name",
    "output": "experiment.output_dir",
    "seed": "seed_everything",
    "val": "data.dataset_classes.validation",
    "workers": "data.num_workers",
}


def nearest(section: str, name: str, siblings: list[str], known: Iterable[str]) -> str | None:
    """Return the dotted key that was probably meant, None if none is near.

    Args:
        section: Where the unknown name was found; empty at the top.
        name: The unknown name.
        siblings: The names that the section has.
        known: All dotted keys; searched by their last part.
    """
    elsewhere: dict[str, list[str]] = {}
    for key in known:
        elsewhere.setdefault(key.rpartition(".")[2], []).append(key)
    if typed := next((each for each in siblings if _one_edit(name, each)), None):
        return join_keys(section, typed)
    if name in _COMMON_NAMES:
        return _COMMON_NAMES[name]
    if found := [each for each in elsewhere if each == name] or [each for each in elsewhere if _one_edit(name, each)]:
        return min(elsewhere[found[0]], key=lambda key: key.partition(".")[0] != section.partition(".")[0])
    if close := get_close_matches(name, siblings, 1):
        return join_keys(section, close[0])
    close = get_close_matches(name, elsewhere, 1, 0.75)
    return elsewhere[close[0]][0] if close else None


def _one_edit(found: str, known: str) -> bool:
    """Whether a letter is missing, added or another, or two neighbours are swapped."""
    pairs = zip(found, known, strict=False)
    start = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(found), len(known)))
    left, right = found[start:], known[start:]
    return left[1:] in {right, right[1:]} or left == right[1:] or left[:2][::-1] + left[2:] == right
