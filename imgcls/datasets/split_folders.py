"""A folder that contains a folder for each split."""

import os
from collections import defaultdict

from imgcls.errors import ConfigError

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

    Args:
        root: The folder.
        option: The option that it was given for, for messages.

    Returns:
        Split -> folder; and path -> reason why it is not used.

    Raises:
        ConfigError: If the folder cannot be listed, or two of its folders are the same split.
    """
    found: dict[str, list[str]] = defaultdict(list)
    beside: dict[str, str] = {}
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{option} {root}: {error.strerror}") from error
    for entry in entries:
        if os.path.isdir(entry.path) and entry.name.lower() in SPLIT_FOLDERS:
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
