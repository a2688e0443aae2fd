"""A folder that contains a folder for each split."""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from imgcls.errors import ConfigError, listed

log = logging.getLogger(__name__)

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
"""Common names of folders that contain a split -> the split."""


def split_folders(root: str, option: str = "--images") -> tuple[dict[str, str], dict[str, str]]:
    """Return the folder of each split, and what is beside them; a folder without a ``train`` folder is ``train``.

    Returns:
        Split -> folder; and path -> reason why it is not used.

    Raises:
        ConfigError: If the folder, given for that option, cannot be listed, or two of its folders are the same split.
    """
    found: dict[str, list[str]] = defaultdict(list)
    beside: dict[str, str] = {}
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{option} {root}: {error.strerror}") from error
    for entry in entries:
        if entry.name.lower() in SPLIT_FOLDERS and os.path.isdir(entry.path):
            found[SPLIT_FOLDERS[entry.name.lower()]].append(entry.path)
        else:
            beside[entry.path] = "hidden" if entry.name.startswith(".") else "beside the folders of the splits"
    if "train" not in found or len(found) == 1:
        return {"train": root}, {}
    for split, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(map(os.path.basename, paths))
            raise ConfigError(f"{option} {root}: {names} are both {split}; keep one")
    return {split: path for split, [path] in found.items()}, beside


def open_split_folders(given: Mapping[str, object]) -> dict[str, str]:
    """Return the folders of splits that replace the folders that contain them, and log how they are read.

    Args:
        given: Split -> a folder, or another dataset. A folder of splits as ``train`` gives the other splits, too, where
            they are None; as ``validation`` or ``test`` it gives that split.

    Raises:
        ConfigError: If a folder cannot be listed, or two of its folders are the same split.
    """
    opened: dict[str, str] = {}
    for name in ("train", "validation", "test"):
        root = given.get(name)
        if not isinstance(root, (str, Path)) or not os.path.isdir(os.path.expanduser(root)):
            continue
        folder = str(os.path.expanduser(root))
        found, beside = split_folders(folder, f"data.dataset_classes.{name}")
        wanted = [split for split in found if split == name or (name == "train" and given.get(split) is None)]
        if found["train"] == folder or not wanted:
            continue
        opened |= {split: found[split] for split in wanted}
        read = ", ".join(f"{os.path.basename(found[split])}/ is {split}" for split in wanted)
        others = [os.path.basename(path) for path, rule in beside.items() if rule != "hidden"]
        log.info("%s: %s%s", root, read, f"; ignoring {listed(others)} beside them" if others else "")
    return opened
