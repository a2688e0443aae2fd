"""Leakage: the same image or group in two splits, or an evaluation on images that a checkpoint was trained on."""

import logging
from collections.abc import Iterable, Mapping

from imgcls.data.config import KEY
from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.checkpoint_split import copies_of_recorded
from imgcls.data.splitting.rules import OnLeak
from imgcls.data.splitting.split import Split
from imgcls.errors import ConfigError

log = logging.getLogger(__name__)

_SHOWN = 3  # leaks, or images with two labels, in a message


def refuse_leaks(splits: Mapping[str, Split], held_out_of: Mapping[str, str], kind: HashKind, on_leak: OnLeak) -> None:
    """Refuse, or warn of, images and groups in two splits; warn of images with two labels.

    Args:
        splits: The splits by name.
        held_out_of: A split that was held out of another one -> the other one.
        kind: How content hashes are computed; images are not compared if it is ``none``.
        on_leak: Whether a leak is an error or a warning.

    Raises:
        ConfigError: Names some of them.
    """
    by_content = compares_content(kind)
    if leaks := find_leaks(splits, held_out_of, by_content):
        _report(f"the same image or group is in two splits: {_pairs(leaks)}", on_leak)
    if by_content and (conflicts := find_conflicts(splits.values())):
        log.warning("the same image has two labels: %s; `imgcls check` lists all", _pairs(conflicts))


def refuse_trained(
    name: str, split: Split, recorded: dict[str, list[str]], kind: HashKind, on_leak: OnLeak
) -> list[str] | None:
    """Refuse, or warn of, images that a checkpoint was trained on; warn of test images that chose its best epoch.

    Args:
        name: Name of the split.
        split: The images to evaluate on.
        recorded: The checkpoint's content hashes by split, of that kind.
        kind: The kind of hashes.
        on_leak: Whether a leak is an error or a warning.

    Returns:
        Their paths; None if they cannot be found.

    Raises:
        ConfigError: Gives their number and one of them.
    """
    if kind == "none":
        log.info("%s: the checkpoint has no content hashes, so images that it was trained on cannot be found", name)
        return None
    copies = copies_of_recorded(split, recorded, kind)
    paths, chose = copies["train"], copies["validation"]
    if paths:
        _report(
            f"{name}: the checkpoint was trained on {len(paths)} of these {len(split)} images, for example {paths[0]}",
            on_leak,
        )
    if chose and name == "test":
        log.warning(
            "test: %d of these %d images are validation images of the run, which chose its best epoch: on these the "
            "scores are somewhat too good, for example %s",
            len(chose),
            len(split),
            chose[0],
        )
    return paths


def compares_content(kind: HashKind) -> bool:
    """Whether images are compared by content; logs the consequences if not."""
    if kind == "none":
        log.info(
            "%s.content_hash: none: copies of an image, leaks between splits and images that a checkpoint was trained "
            "on are not searched; the split is made and restored by path",
            KEY,
        )
    return kind != "none"


def find_leaks(
    splits: Mapping[str, Split], held_out_of: Mapping[str, str], by_content: bool = True
) -> list[tuple[str, str]]:
    """Find images, if ``by_content``, and groups that are in more than one split.

    Args:
        splits: The splits by name.
        held_out_of: A split that was held out of another one -> the other one; both count as one here.
        by_content: Whether to compare images as well as groups.

    Returns:
        For each such sample, the first one like it and itself: texts ``<path> (<split>)``.
    """
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    leaks = []
    for name, split in splits.items():
        groups = [""] * len(split) if split.groups is None else split.groups
        contents = split.fingerprints if by_content else [""] * len(split)
        for index, (content, group) in enumerate(zip(contents, groups, strict=True)):
            for key in [key for key in (("content", content), ("group", group)) if key[1]]:
                owner, path = seen.setdefault(key, (name, split.path(index)))
                if held_out_of.get(owner, owner) != held_out_of.get(name, name):
                    what = f", group {group}" if key[0] == "group" else ""
                    leaks.append((f"{path} ({owner}{what})", f"{split.path(index)} ({name}{what})"))
                    break
    return leaks


def find_conflicts(splits: Iterable[Split]) -> list[tuple[str, str]]:
    """Find images that occur with another label.

    Returns:
        For each such image, the first one like it and itself: texts ``<path> (<label>)``.
    """
    first: dict[str, tuple[str, str]] = {}
    conflicts = []
    for split in splits:
        for index, (content, label) in enumerate(zip(split.fingerprints, split.label_names, strict=True)):
            known, path = first.setdefault(content, (label, split.path(index)))
            if known != label:
                conflicts.append((f"{path} ({known})", f"{split.path(index)} ({label})"))
    return conflicts


def _report(text: str, on_leak: OnLeak) -> None:
    if on_leak == "error":
        raise ConfigError(f"{text}; remove them from one side, or accept it: --data.on_leak warn")
    log.warning("%s", text)


def _pairs(found: list[tuple[str, str]]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(f"{one} and {other}" for one, other in found[:_SHOWN]) + more
