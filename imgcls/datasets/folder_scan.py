"""List the files below a folder, and the rules by which some are ignored."""

import os
from collections import deque
from pathlib import Path

from imgcls.errors import ConfigError

JUNK_FILES = {"thumbs.db", "desktop.ini"}
JUNK_FOLDERS = {
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__macosx",
    "@eadir",
    "#recycle",
    "__pycache__",
}
JUNK_FOLDER_RULE = "a folder written by the system"
COMPANION_SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html"}


def scan_folder(root: str) -> tuple[list[str], dict[str, str]]:
    """List the files below a folder by name, without opening them.

    Links to folders are followed once, and last, so that a folder is listed under its own name.

    Returns:
        The sorted candidate image files, and the ignored files and folders with the rule that ignores each.

    Raises:
        ConfigError: If a folder cannot be listed.
    """
    files: list[str] = []
    ignored: dict[str, str] = {}
    seen: set[tuple[int, int]] = set()
    above = {_identity(parent) for parent in Path(os.path.realpath(root)).parents}
    folders, links = deque([root]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            identity = _identity(folder)
            if identity in seen or identity in above:
                ignored[folder] = f"a link to a folder {'that is used already' if identity in seen else 'above'}"
                continue
            seen.add(identity)
            below, linked = _list_folder(folder, files, ignored)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be listed: {error.strerror}") from error
        folders.extend(below)
        links.extend(linked)
    return sorted(files), ignored


def subfolders(root: str) -> set[str]:
    """Return the folders directly below a folder, and the links to folders; none if it cannot be listed."""
    try:
        with os.scandir(root) as entries:
            return {entry.path for entry in entries if _is_folder(entry) or _is_link_to_folder(entry)}
    except OSError:
        return set()


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _list_folder(folder: str, files: list[str], ignored: dict[str, str]) -> tuple[list[str], list[str]]:
    """Add the files of one folder to ``files`` or ``ignored``; return its sub-folders and its links to folders."""
    folders: list[str] = []
    links: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_link = _is_link_to_folder(entry)
            is_folder = is_link or _is_folder(entry)
            if rule := _ignore_rule(entry.name, is_folder):
                ignored[entry.path] = rule
            elif is_folder:
                (links if is_link else folders).append(entry.path)
            else:
                files.append(entry.path)
    return sorted(folders), sorted(links)


def _ignore_rule(name: str, is_folder: bool) -> str:
    if name.startswith("."):
        return "hidden"
    if is_folder:
        return JUNK_FOLDER_RULE if name.lower() in JUNK_FOLDERS else ""
    if name.lower() in JUNK_FILES:
        return "written by a file browser"
    if os.path.splitext(name)[1].lower() in COMPANION_SUFFIXES:
        return "a text file by its extension"
    return ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_link_to_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and os.path.isdir(entry.path)  # entry.is_dir() raises on a link loop
