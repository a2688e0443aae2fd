"""Training images in tar shards that are read as a stream, from wherever the webdataset library can open a URL."""

import itertools
import random
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.tar_index import (
    Parts,
    image_bytes,
    label_bytes,
    label_of,
    located,
    members,
    named_label,
    open_shard,
)
from imgcls.datasets.webdataset_local import IMAGE_KEYS, counted
from imgcls.errors import ConfigError, RunError, first_line
from imgcls.images import MAX_PIXELS, Pixels, decode_image

_OF_THE_LIBRARY = re.compile(r"__[^/]*__($|/)")  # what it keeps for itself


class Streamed(NamedTuple):
    """An image of a stream.

    Args:
        path: ``<url>/<key>``.
        content: The bytes of the image file.
        label: The name of its class.
    """

    path: str
    content: bytes
    label: str


class StreamImageDataset(ImageDataset):
    """Labelled images in WebDataset's tar shards behind URLs, read one after the other, for ``train`` alone.

    For sets that are on no disk of this machine. A stream cannot be divided, so ``dataset_classes.validation`` is given
    as another dataset; which images it holds is not recorded, copies of them are not found, and a run that is resumed
    in the middle of an epoch begins that epoch's stream anew. For shards on this machine ShardImageDataset promises all
    that.

    Args:
        urls: A URL or path, with ``{000..012}`` for several, or a list of these: http, https, file, and what else the
            webdataset library opens.
        class_names: The classes in the order of the outputs; a label is one of these, or its number from 0. A name
            that is itself such a number stands at that place.
        length: Images in an epoch.
        label_key: The extension of the members that hold labels, such as cls, txt or json.
        label_field: The field of a JSON member that is the label.
        image_keys: The extensions of the members that are images; null is the common ones.
        shuffle: Images that are kept at hand in each loader process, to draw the next one from.
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
        _library()  # where it is not installed, that is said at once
        self.urls = [url for pattern in ([urls] if isinstance(urls, str) else urls) for url in counted(pattern)]
        self.class_names = class_names
        self.length = length
        self.parts = Parts(tuple(image_keys or IMAGE_KEYS), label_key, label_field)
        self.shuffle = shuffle
        self.max_pixels = max_pixels
        self.samples = pd.DataFrame({"path": [], "label": []}, dtype=object)
        for key, value in (("length", length), ("shuffle", shuffle)):
            if value < 1:
                raise ConfigError(f"{self}: {key}: {value}; it must be at least 1")
        for place, name in enumerate(class_names):
            if name in class_names[:place]:
                raise ConfigError(f"{self}: class_names: {name!r} twice")
            if name.isdecimal() and int(name) < len(class_names) and name != str(place):
                raise ConfigError(
                    f"{self}: class_names: {name!r} is the number {place}, so a label {name!r} could mean two classes"
                )

    def __str__(self) -> str:
        """Return the first of the URLs."""
        return next(iter(self.urls), "no shard")

    def read(self, index: int) -> NoReturn:
        """Refuse: there are no rows."""
        raise IndexError(index)

    def images(self, seed: int, part: int, parts: int) -> Iterator[Streamed]:
        """Yield images for ever: the shards in a new order each time round, the images drawn from a few at hand.

        Args:
            seed: The same seed gives the same order.
            part: Which share of the shards.
            parts: Number of shares, at most the number of shards.

        Raises:
            RunError: If a shard cannot be read.
            ConfigError: If a sample has no image or no label that is a class.
        """
        chance = random.Random(seed)  # noqa: S311 - an order, no secret
        for turn in itertools.count():
            order = np.random.default_rng([seed, turn]).permutation(len(self.urls))
            images = (image for place in order[part::parts] for image in self._shard(self.urls[place]))
            found = False
            for image in _library().shuffle(self.shuffle, rng=chance)(images):
                found = True
                yield image
            if not found:
                raise ConfigError(f"{self}: no image in the {len(order[part::parts])} shards of a loader process")

    def decode(self, image: Streamed) -> Pixels:
        """Return the pixels of an image, uint8, ``(H, W, 3)``, RGB."""
        return decode_image(image.content, image.path, self.max_pixels)

    def _shard(self, url: str) -> Iterator[Streamed]:
        library = _library()
        try:
            with library.gopen(url) as stream, open_shard(url, stream) as shard, located(shard):
                for sample in library.tariterators.group_by_keys(self._files(url, shard)):
                    yield from self._image(f"{url}/{sample['__key__']}", sample)
        except ConfigError:
            raise
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            raise RunError(f"{url}: cannot be read: {first_line(error)}") from error

    def _files(self, url: str, shard: tarfile.TarFile) -> Iterator[dict[str, Any]]:
        """Yield the members as the library groups them; only images and labels are read."""
        for member in members(shard):
            if not member.isreg() or _OF_THE_LIBRARY.match(member.name):
                continue
            where = f"{url}/{member.name}"
            extension = member.name.rpartition("/")[2].partition(".")[2].lower()
            content = b""
            if extension == self.parts.label_key:
                content = label_bytes(shard, member, where)
            elif extension in self.parts.image_keys:
                content = image_bytes(shard, member, where)
            yield {"fname": member.name, "data": content, "__url__": url}

    def _image(self, path: str, sample: Mapping[str, Any]) -> Iterator[Streamed]:
        """Yield the image of a sample; none where there is neither an image nor a label."""
        images = [sample[key] for key in self.parts.image_keys if key in sample]
        label = sample.get(str(self.parts.label_key))
        if not images and label is None:
            return
        if len(images) != 1 or label is None:
            raise ConfigError(
                f"{path}: a sample has one image and a member {self.parts.label_key}; it has the members "
                f"{', '.join(key for key in sample if not key.startswith('__'))}"
            )
        text = label_of(label, self.parts, path)
        name = text if text in self.class_names else named_label(text, self.class_names, path)
        yield Streamed(path, images[0], name)


def _library() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise ConfigError(
            f"imgcls.StreamImageDataset needs the package webdataset: pip install 'imgcls[webdataset]' "
            f"({first_line(error)})"
        ) from error
    return webdataset
