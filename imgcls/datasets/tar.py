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
from imgcls.errors import ConfigError
from imgcls.files import replacing

log = logging.getLogger(__name__)

_LAYOUT = 1  # of the remembered files
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)  # WebDataset's: up to the first dot of the name

_Members = dict[str, dict[str, tarfile.TarInfo]]  # key -> extension -> member


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
        label: The label; None where no label was asked for.
        ignored: Members that belong to no sample.
    """

    key: list[str]
    offset: list[int]
    size: list[int]
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
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            partial.write_text(json.dumps(index._asdict()), encoding="utf-8")
    except OSError as error:
        log.info("%s cannot be written (%s): the shard is indexed anew in each run", file, error.strerror)
    return index


def _remembered_file(path: str, parts: Parts) -> Path:
    status = os.stat(path)
    known_by = [_LAYOUT, os.path.abspath(path), status.st_size, status.st_mtime_ns, *parts]
    return cache_folder() / "shards" / f"{blake2b(json.dumps(known_by).encode(), digest_size=16).hexdigest()}.json"


def index_shard(path: str, parts: Parts) -> Index:
    """List the samples of a shard by the headers of its members; of their contents, only labels are read.

    Raises:
        ConfigError: Names the shard and the key: no uncompressed tar file, a member that is there twice, a sample
            without image or label or with two images, a label that cannot be read.
    """
    members: _Members = {}
    labels: dict[str, str] = {}
    ignored: list[str] = []
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                match = _NAME.fullmatch(member.name)
                if match is None or not member.isreg():
                    ignored += [] if member.isdir() else [member.name]
                    continue
                key, extension = match[1], match[2].lower()
                if members.setdefault(key, {}).setdefault(extension, member) is not member:
                    raise ConfigError(f"{path}: {key}: the member {member.name!r} is there twice")
                if extension == parts.label_key:
                    labels[key] = _label(_content(shard, member), parts, f"{path}: {key}")
    except tarfile.TarError as error:
        raise ConfigError(f"{path}: cannot be read as a tar file that is not compressed: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return _index(path, members, labels, ignored, parts)


def _content(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    return file.read() if file else b""


def _label(content: bytes, parts: Parts, where: str) -> str:
    """Return the label that a member holds: its text, or a value of its JSON."""
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


def _index(path: str, members: _Members, labels: dict[str, str], ignored: list[str], parts: Parts) -> Index:
    index = Index([], [], [], [], ignored)
    for key, found in members.items():
        images = [found[extension] for extension in parts.image_keys if extension in found]
        if not images and key not in labels:
            index.ignored.extend(member.name for member in found.values())
            continue
        if len(images) != 1:
            names = " and ".join(repr(image.name) for image in images) or f"none, only {', '.join(found)}"
            raise ConfigError(f"{path}: {key}: a sample has one image, here {names}; 'image_keys' says what images are")
        if parts.label_key is not None and key not in labels:
            raise ConfigError(f"{path}: {key}: no label {key}.{parts.label_key}; 'label_key' says which member has it")
        if images[0].issparse():
            raise ConfigError(f"{path}: {key}: is stored as a sparse file; pack the shard without")
        index.key.append(key)
        index.offset.append(images[0].offset_data)
        index.size.append(images[0].size)
        index.label.append(labels.get(key))
    return index
