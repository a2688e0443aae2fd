"""Training images streamed from tar shards at URLs, with the webdataset library."""

import itertools
import random
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.shard_index import MemberKeys, class_name, label_of
from imgcls.datasets.tar_reader import label_bytes, members, naming_position, open_member, open_tar
from imgcls.datasets.webdataset_local import IMAGE_KEYS, expand_range
from imgcls.errors import ConfigError, RunError, first_line
from imgcls.images import MAX_PIXELS, Pixels, decode_image

_METADATA = re.compile(r"__[^/]*__($|/)")  # WebDataset's own members


class StreamedImage(NamedTuple):
    """An encoded image of a stream: ``<url>/<key>``, the bytes of its file, and the name of its class."""

    path: str
    content: bytes
    label: str


class StreamImageDataset(ImageDataset):
    """Labelled images in WebDataset's tar shards at URLs, read sequentially, for ``train`` only.

    For datasets that do not fit on a local disk. A stream cannot be split, so ``dataset_classes.validation`` must be
    another dataset; its images are not recorded, copies are not found, and a run resumed within an epoch restarts the
    stream of that epoch. ShardImageDataset does all of this for local shards.

    Args:
        urls: A URL or path, with ``{000..012}`` for several, or a list of these: http, https, file, and other schemes
            of the webdataset library.
        class_names: The classes in the order of the outputs; a label is a name, or its index from 0. A name that is
            itself such a number must be at that index.
        length: Images per epoch.
        label_key: The extension of labels, for example cls, txt or json.
        label_field: The field of a JSON label.
        image_keys: The extensions of images; null is the common ones.
        shuffle: Size of the shuffle buffer of each loader process, in images.
        max_pixels: The largest width x height that is decoded; larger images are refused.
    """

    def __init__(
        self,
        urls: str | list[str],
        class_names: list[str],
        length: int,
        label_key: str = "cls",
        label_field: str | None = None,
        image_keys: list[str] | None = None,
        shuffle: int = 1000,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        _library()  # an error now if it is not installed
        self.urls = [url for pattern in ([urls] if isinstance(urls, str) else urls) for url in expand_range(pattern)]
        self.class_names = class_names
        self.length = length
        self.member_keys = MemberKeys(tuple(image_keys or IMAGE_KEYS), label_key, label_field)
        self.shuffle = shuffle
        self.max_pixels = max_pixels
        self.samples = pd.DataFrame({"path": [], "label": []}, dtype=object)
        for key, value in (("length", length), ("shuffle", shuffle)):
            if value < 1:
                raise ConfigError(f"{self}: {key} must be at least 1, got {value}")
        for index, name in enumerate(class_names):
            if name in class_names[:index]:
                raise ConfigError(f"{self}: class_names has {name!r} twice")
            if name.isdecimal() and int(name) < len(class_names) and name != str(index):
                raise ConfigError(
                    f"{self}: class_names: {name!r} is at index {index}, so a label {name!r} could mean two classes"
                )

    def __str__(self) -> str:
        return next(iter(self.urls), "no shard")

    def read(self, index: int) -> NoReturn:
        """Raise an error, since a stream has no rows."""
        raise IndexError(index)

    def images(self, seed: int, part: int, parts: int) -> Iterator[StreamedImage]:
        """Yield images endlessly: shards in a new order in each pass, images through a shuffle buffer.

        Args:
            seed: The same seed gives the same order.
            part: Index of this reader's part of the shards, from 0.
            parts: Number of parts, at most the number of shards.

        Raises:
            RunError: If a shard cannot be read.
            ConfigError: If a sample has no image or no known label.
        """
        generator = random.Random(seed)  # noqa: S311 - an order, not a secret
        for number in itertools.count():
            order = np.random.default_rng([seed, number]).permutation(len(self.urls))
            images = (image for shard in order[part::parts] for image in self._shard(self.urls[shard]))
            found = False
            for image in _library().shuffle(self.shuffle, rng=generator)(images):
                found = True
                yield image
            if not found:
                raise ConfigError(f"{self}: no image in the {len(order[part::parts])} shards of a loader process")

    def decode(self, image: StreamedImage, min_side: int | None = None) -> Pixels:
        """Return the pixels of an image, uint8, ``(H, W, 3)``, RGB; ``min_side`` as for ``load_image``."""
        return decode_image(image.content, image.path, self.max_pixels, min_side)

    def _shard(self, url: str) -> Iterator[StreamedImage]:
        library = _library()
        try:
            with library.gopen(url) as stream, open_tar(url, stream) as tar, naming_position(tar):
                for sample in library.tariterators.group_by_keys(self._files(url, tar)):
                    yield from self._image(f"{url}/{sample['__key__']}", sample)
        except ConfigError:
            raise
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            raise RunError(f"{url}: cannot be read: {first_line(error)}") from error

    def _files(self, url: str, tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
        """Yield the members in the library's form; only images and labels are read."""
        for member in members(tar):
            if not member.isreg() or _METADATA.match(member.name):
                continue
            where = f"{url}/{member.name}"
            extension = member.name.rpartition("/")[2].partition(".")[2].lower()
            content = b""
            if extension == self.member_keys.label_key:
                content = label_bytes(tar, member, where)
            elif extension in self.member_keys.image_keys:
                content = open_member(tar, member, where).read()
            yield {"fname": member.name, "data": content, "__url__": url}

    def _image(self, path: str, sample: Mapping[str, Any]) -> Iterator[StreamedImage]:
        """Yield the image of a sample; nothing if it has neither an image nor a label."""
        keys = self.member_keys
        images = [sample[key] for key in keys.image_keys if key in sample]
        label = sample.get(str(keys.label_key))
        if not images and label is None:
            return
        if len(images) != 1 or label is None:
            names = ", ".join(key for key in sample if not key.startswith("__"))
            raise ConfigError(f"{path}: expected one image and a label {keys.label_key}, got the members {names}")
        text = label_of(label, keys, path)
        name = text if text in self.class_names else class_name(text, self.class_names, path)
        yield StreamedImage(path, images[0], name)


def _library() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise ConfigError(
            f"imgcls.StreamImageDataset needs the package webdataset: pip install 'imgcls[webdataset]' "
            f"({first_line(error)})"
        ) from error
    return webdataset
