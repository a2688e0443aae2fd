"""Images and groups that are in more than one split, or have more than one label."""

from collections.abc import Iterable, Mapping

from imgcls.data.splitting.split import Split


def find_leaks(
    splits: Mapping[str, Split], made_of: Mapping[str, str], by_content: bool = True
) -> list[tuple[str, str]]:
    """Find images and groups that stand in more than one split.

    Args:
        splits: The splits by name.
        made_of: A split that was held out of another -> the other; the two were divided with care, and are one here.
        by_content: Whether images are compared, and not groups alone.

    Returns:
        For each such sample the first one like it, and itself: texts ``<path> (<split>)``.
    """
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    leaks = []
    for name, split in splits.items():
        groups = [""] * len(split) if split.groups is None else split.groups
        contents = split.fingerprints if by_content else [""] * len(split)
        for place, (content, group) in enumerate(zip(contents, groups, strict=True)):
            for key in [key for key in (("content", content), ("group", group)) if key[1]]:
                owner, path = seen.setdefault(key, (name, split.path(place)))
                if made_of.get(owner, owner) != made_of.get(name, name):
                    what = f", group {group}" if key[0] == "group" else ""
                    leaks.append((f"{path} ({owner}{what})", f"{split.path(place)} ({name}{what})"))
                    break
    return leaks


def find_conflicts(splits: Iterable[Split]) -> list[tuple[str, str]]:
    """Find images that are in the data with another label, too.

    Args:
        splits: The splits.

    Returns:
        For each such image the first one like it, and itself: texts ``<path> (<label>)``.
    """
    first: dict[str, tuple[str, str]] = {}
    conflicts = []
    for split in splits:
        for place, (content, label) in enumerate(zip(split.fingerprints, split.label_names, strict=True)):
            known, path = first.setdefault(content, (label, split.path(place)))
            if known != label:
                conflicts.append((f"{path} ({known})", f"{split.path(place)} ({label})"))
    return conflicts
