"""What lies where in a tar shard of images, found once and remembered."""

import json
import logging
import os
import re
import sys
import tarfile
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from imgcls.cache_folder import cache_folder
from imgcls.datasets.dataset import fingerprint_of
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import naming, write_text

log = logging.getLogger(__name__)

_LAYOUT = 2  # of the remembered files
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)  # WebDataset's: up to the first dot of the name


class Parts(NamedTuple):
    """Which members of a sample matter.

    Args:
        image_keys: Extensions of images.
        label_key: Extension of labels; None where there are none.
        label_field: The field of a JSON label.
    """

    image_keys: tuple[str, ...]
    label_key: str | None = None
    label_field: str | None = None


class Index(NamedTuple):
    """The samples of a shard, a value each in every list but the last.

    Args:
        key: What the names of a sample's members share.
        offset: Where the bytes of the image begin in the shard.
        size: How many there are.
        content: Hash of these bytes.
        label: The label; None where no label was asked for.
        ignored: Members that belong to no sample.
    """

    key: list[str]
    offset: list[int]
    size: list[int]
    content: list[str]
    label: list[str | None]
    ignored: list[str]


def remembered_index(path: str, parts: Parts) -> Index:
    """Return the index of a shard: from the cache folder, if it was indexed before and has not changed since.

    Raises:
        ConfigError: As ``index_shard`` does.
    """
    file = _remembered_file(path, parts)
    try:
        return Index(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):  # not there, or not ours
        index = index_shard(path, parts)
    try:
        with naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(index._asdict()))
    except OSError as error:
        log.info("%s: the shard is indexed anew in each run", error)
    return index


def _remembered_file(path: str, parts: Parts) -> Path:
    status = os.stat(path)
    known_by = [_LAYOUT, os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, *parts]
    return cache_folder() / "shards" / f"{blake2b(json.dumps(known_by).encode(), digest_size=16).hexdigest()}.json"


def index_shard(path: str, parts: Parts) -> Index:
    """Read a shard once, from end to end, and list its samples.

    Raises:
        ConfigError: Names the shard and the key: no uncompressed tar file, a member that is there twice, a sample
            without image or label or with two images, a label that cannot be read.
    """
    samples: dict[str, _Sample] = {}
    index = Index([], [], [], [], [], [])
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                match = _NAME.fullmatch(member.name)
                if match is None or not member.isreg():
                    index.ignored.extend([] if member.isdir() else [member.name])
                    continue
                sample = samples.setdefault(match[1], _Sample(f"{path}: {match[1]}"))
                sample.add(match[2].lower(), member, shard, parts)
    except tarfile.TarError as error:
        raise ConfigError(f"{path}: cannot be read as a tar file that is not compressed: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    for key, sample in samples.items():
        if sample.image is None and sample.label is None:
            index.ignored.extend(sample.members.values())
        else:
            _append(index, key, sample, parts)
    return index


class _Sample:
    """The members of one key, as they come.

    Args:
        where: Shard and key, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.members: dict[str, str] = {}  # extension -> name
        self.image: tarfile.TarInfo | None = None
        self.content = ""
        self.label: str | None = None

    def add(self, extension: str, member: tarfile.TarInfo, shard: tarfile.TarFile, parts: Parts) -> None:
        """Take a member in."""
        if extension in self.members:
            raise ConfigError(f"{self.where}: the member {member.name!r} is there twice")
        self.members[extension] = member.name
        if extension in parts.image_keys:
            if self.image is not None:
                names = f"{self.image.name!r} and {member.name!r}"
                raise ConfigError(f"{self.where}: a sample has one image, not {names}; 'image_keys' says which it is")
            if member.issparse():
                raise ConfigError(f"{self.where}: is stored as a sparse file; pack the shard without")
            self.image, self.content = member, fingerprint_of(_bytes(shard, member))
        elif extension == parts.label_key:
            self.label = label_of(_bytes(shard, member), parts, self.where)


def _append(index: Index, key: str, sample: _Sample, parts: Parts) -> None:
    if sample.image is None:
        raise ConfigError(f"{sample.where}: no image among {', '.join(sample.members)}; 'image_keys' says what one is")
    if parts.label_key is not None and sample.label is None:
        raise ConfigError(f"{sample.where}: no label {key}.{parts.label_key}; 'label_key' says which member has it")
    index.key.append(key)
    index.offset.append(sample.image.offset_data)
    index.size.append(sample.image.size)
    index.content.append(sample.content)
    index.label.append(sample.label)


def _bytes(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    return file.read() if file else b""


def label_of(content: bytes, parts: Parts, where: str) -> str:
    """Return the label that a member holds: its text, or a value of its JSON.

    Raises:
        ConfigError: If there is none; ``where`` names the sample.
    """
    try:
        value = json.loads(content) if str(parts.label_key).endswith("json") else content.decode("utf-8").strip()
    except ValueError as error:
        raise ConfigError(f"{where}: the label cannot be read: {error}") from error
    if isinstance(value, dict):
        if parts.label_field not in value:
            fields = ", ".join(map(repr, value))
            raise ConfigError(f"{where}: 'label_field' is {parts.label_field}; the label has the fields {fields}")
        value = value[parts.label_field]
    if not isinstance(value, (str, int)) or value == "":
        raise ConfigError(f"{where}: the label is {value!r}; it must be a text or a whole number")
    return sys.intern(str(value))


def named_label(label: str, names: list[str], where: str) -> str:
    """Return the name that a number stands for.

    Raises:
        ConfigError: If it is no number of a name; ``where`` names the sample.
    """
    if not label.isdecimal() or int(label) >= len(names):
        raise ConfigError(f"{where}: the label is {label!r}; 'class_names' has the numbers 0 to {len(names) - 1}")
    return names[int(label)]
