"""What a folder of photos contains: splits, classes, image sizes, and groups that the file names suggest."""

import os
import re
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.labels import natural_order
from imgcls.datasets.split_folders import SPLIT_FOLDERS, split_folders
from imgcls.errors import ConfigError, ImageError, listed
from imgcls.images import check_header

_SAMPLED = 1000  # headers that are read: enough for a median
_THREADS = 8  # that wait for the disk
_FEWEST_GROUPS = 5
_PATTERNS = (
    r"^[^/]+/([^/]+)/",  # class/patient/image.jpg
    r"([^/]+?)[ _-]+[A-Za-z]{0,6}\d+\.\w+$",  # class/patient_012.jpg
)


@dataclass(frozen=True)
class Groups:
    """Images that probably show the same thing.

    Args:
        regex: Finds the group in the path below the root, as ``group_regex``.
        count: Number of groups.
        examples: Names of two images of one group.
        name: The name of that group.
    """

    regex: str
    count: int
    examples: tuple[str, str]
    name: str


@dataclass(frozen=True)
class PhotoFolder:
    """What a folder of photos contains.

    Args:
        splits: Split -> its folder; ``train`` alone if there are no folders of splits.
        classes: Class -> number of its training images, in natural order.
        counts: Split -> number of images.
        sizes: Width and height in pixels of a sample of the training images.
        unreadable: Number of images of that sample that cannot be read.
        groups: Groups of the training images; None if their names suggest none.
    """

    splits: dict[str, str]
    classes: dict[str, int]
    counts: dict[str, int]
    sizes: list[tuple[int, int]]
    unreadable: int
    groups: Groups | None

    @property
    def size(self) -> tuple[int, int]:
        """The median width and height in pixels."""
        widths, heights = zip(*self.sizes, strict=True)
        return round(statistics.median(widths)), round(statistics.median(heights))

    @property
    def imbalance(self) -> float:
        """Size of the largest class / size of the smallest class."""
        return max(self.classes.values()) / min(self.classes.values())


def read_folder(root: str) -> PhotoFolder:
    """List a folder, and read the headers of a sample of its images.

    It has one folder per class, or folders ``train``, ``val``, ``test`` of such folders.

    Raises:
        ConfigError: If it does not exist, or has no images in at least two classes.
    """
    if not os.path.isdir(root):
        raise ConfigError(f"init: {root!r} is not a folder; type: imgcls init FOLDER, with one sub-folder per class")
    found, _ = split_folders(root, "init")
    splits: dict[str, str] = {split: found[split] for split in ("train", "validation", "test") if split in found}
    data = {split: FolderImageDataset(folder) for split, folder in splits.items()}
    labels = list(data["train"].samples["label"])
    classes = dict(sorted(Counter(labels).items(), key=lambda item: natural_order(str(item[0]))))
    _check_classes(splits["train"], classes)
    paths = data["train"].sample_paths
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(_size, paths[:: max(len(paths) // _SAMPLED, 1)]))
    sizes = [size for size in headers if size is not None]
    if not sizes:
        raise ConfigError(
            f"init: none of the images in {splits['train']} can be read; see: imgcls check --images {root}"
        )
    return PhotoFolder(
        splits=splits,
        classes=classes,
        counts={split: len(dataset.samples) for split, dataset in data.items()},
        sizes=sizes,
        unreadable=len(headers) - len(sizes),
        groups=_find_groups([os.path.relpath(path, splits["train"]) for path in paths], len(classes)),
    )


def _check_classes(root: str, classes: dict[str, int]) -> None:
    if not classes:
        raise ConfigError(f"init: no image in {root}")
    if None in classes:
        raise ConfigError(f"init: {root} contains images but no class folders; expected one sub-folder per class")
    if len(classes) < 2:
        [name] = classes
        hint = f"; did you mean {os.path.join(root, name)}?" if name.lower() in SPLIT_FOLDERS else ""
        raise ConfigError(f"init: only one class folder with images in {root}: {listed([name])}{hint}")


def _size(path: str) -> tuple[int, int] | None:
    try:
        return check_header(path)
    except ImageError:
        return None


def _find_groups(paths: list[str], classes: int) -> Groups | None:
    """Return the groups of the first pattern that matches every path, and has several images in most groups."""
    for regex in _PATTERNS:
        names = [match[1] if (match := re.search(regex, path)) else None for path in paths]
        counts = Counter(names)
        # fewer groups than that are classes or a camera's prefix; single images are no groups
        if None in counts or len(counts) < max(_FEWEST_GROUPS, 2 * classes) or len(names) < 2 * len(counts):
            continue
        name, _ = counts.most_common(1)[0]
        first, second = [path for path, group in zip(paths, names, strict=True) if group == name][:2]
        return Groups(regex, len(counts), (os.path.basename(first), os.path.basename(second)), str(name))
    return None
