"""Index of a tar shard in WebDataset's layout: the offset, size, hash and label of each image."""

import json
import logging
import os
import re
import sys
import tarfile
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from imgcls.datasets.fingerprint import fingerprint_of_file
from imgcls.datasets.tar_reader import label_bytes, members, naming_position, open_member, open_tar
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import naming, regular, write_text
from imgcls.runtime.cache_folder import cache_folder

log = logging.getLogger(__name__)

_LAYOUT = 3  # version of the cached index files
_MEMBER_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)  # key and extension, split at the first dot


class MemberKeys(NamedTuple):
    """The extensions of a sample's members, and the field of a JSON label; without labels, ``label_key`` is None."""

    image_keys: tuple[str, ...]
    label_key: str | None = None
    label_field: str | None = None


class ShardIndex(NamedTuple):
    """The samples of a shard: lists with one value per sample, and the ignored members.

    Args:
        key: The common part of the names of a sample's members.
        offset: Offset of the image in the shard, in bytes.
        size: Size of the image in bytes.
        content: Hash of the image's bytes.
        label: The label; None in an unlabelled dataset.
        ignored: Members that belong to no sample.
    """

    key: list[str]
    offset: list[int]
    size: list[int]
    content: list[str]
    label: list[str | None]
    ignored: list[str]


_INDEX = TypeAdapter(ShardIndex)


def cached_index(path: str, keys: MemberKeys) -> ShardIndex:
    """Return the index of a shard, from the cache folder if the shard has not changed since it was indexed.

    Raises:
        ConfigError: As ``index_shard`` does.
    """
    file = _cache_file(path, keys)
    try:
        with open(file, "rb", opener=regular) as cached:
            return _validated(cached.read())
    except (OSError, ValueError):  # absent, or not written by us
        index = index_shard(path, keys)
    try:
        with naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(index._asdict()))
    except OSError as error:
        log.info("%s: the shard will be indexed again in each run", error)
    return index


def _validated(content: bytes) -> ShardIndex:
    index = _INDEX.validate_json(content, strict=True)
    if len({len(values) for values in (index.key, index.offset, index.size, index.content, index.label)}) > 1:
        raise ValueError("lists of different lengths")
    return index


def _cache_file(path: str, keys: MemberKeys) -> Path:
    status = os.stat(path)
    identity = [_LAYOUT, os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, *keys]
    return cache_folder() / "shards" / f"{blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()}.json"


def index_shard(path: str, keys: MemberKeys) -> ShardIndex:
    """Read a shard from end to end, and index its samples.

    Raises:
        ConfigError: If it is not an uncompressed tar file, is damaged, repeats a member, or a sample has no image, two
            images, no label or an invalid label; the message names the shard and the key or position.
    """
    samples: dict[str, _Sample] = {}
    index = ShardIndex([], [], [], [], [], [])
    try:
        with open_tar(path) as tar, naming_position(tar):
            for member in members(tar):
                match = _MEMBER_NAME.fullmatch(member.name)
                if match is None or not member.isreg():
                    index.ignored.extend([] if member.isdir() else [member.name])
                    continue
                sample = samples.setdefault(match[1], _Sample(f"{path}: {match[1]}"))
                sample.add(match[2].lower(), member, tar, keys)
    except tarfile.TarError as error:
        raise ConfigError(f"{path}: {error}; create or copy it again") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    for key, sample in samples.items():
        sample.append_to(index, key, keys)
    return index


class _Sample:
    """The members with one key; ``where`` names shard and key."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.members: dict[str, str] = {}  # extension -> name
        self.image: tarfile.TarInfo | None = None
        self.content = ""
        self.label: str | None = None

    def add(self, extension: str, member: tarfile.TarInfo, tar: tarfile.TarFile, keys: MemberKeys) -> None:
        """Add a member, and read it if it is an image or a label."""
        if extension in self.members:
            raise ConfigError(f"{self.where}: the member {member.name!r} is there twice")
        self.members[extension] = member.name
        if extension in keys.image_keys:
            if self.image is not None:
                names = f"{self.image.name!r} and {member.name!r}"
                raise ConfigError(f"{self.where}: expected one image, got {names}; 'image_keys' sets the extension")
            self.image, self.content = member, fingerprint_of_file(open_member(tar, member, self.where))
        elif extension == keys.label_key:
            self.label = label_of(label_bytes(tar, member, self.where), keys, self.where)

    def append_to(self, index: ShardIndex, key: str, keys: MemberKeys) -> None:
        """Append the sample to an index, or its members to the ignored ones if it has neither image nor label."""
        if self.image is None and self.label is None:
            index.ignored.extend(self.members.values())
            return
        if self.image is None:
            raise ConfigError(
                f"{self.where}: no image among {', '.join(self.members)}; 'image_keys' sets the extensions of images"
            )
        if keys.label_key is not None and self.label is None:
            raise ConfigError(f"{self.where}: no label {key}.{keys.label_key}; 'label_key' sets the extension")
        index.key.append(key)
        index.offset.append(self.image.offset_data)
        index.size.append(self.image.size)
        index.content.append(self.content)
        index.label.append(self.label)


def label_of(content: bytes, keys: MemberKeys, where: str) -> str:
    """Return the label in a member: its text, or a value of its JSON.

    Raises:
        ConfigError: If there is none; ``where`` names the sample.
    """
    try:
        value = json.loads(content) if str(keys.label_key).endswith("json") else content.decode("utf-8").strip()
    except ValueError as error:
        raise ConfigError(f"{where}: the label cannot be read: {error}") from error
    if isinstance(value, dict):
        if keys.label_field not in value:
            fields = ", ".join(map(repr, value))
            raise ConfigError(f"{where}: 'label_field' is {keys.label_field}; the label has the fields {fields}")
        value = value[keys.label_field]
    if not isinstance(value, (str, int)) or value == "":
        raise ConfigError(f"{where}: the label must be a text or a whole number, got {value!r}")
    return sys.intern(str(value))


def class_name(label: str, names: list[str], where: str) -> str:
    """Return the class name of a numeric label.

    Raises:
        ConfigError: If the label is not the index of a name; ``where`` names the sample.
    """
    if not label.isdecimal() or int(label) >= len(names):
        raise ConfigError(f"{where}: the label must be an index of class_names, 0 to {len(names) - 1}, got {label!r}")
    return names[int(label)]
