"""What lies where in a tar shard of images, found once and remembered."""

import io
import json
import logging
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, NamedTuple, Self

from pydantic import TypeAdapter

from imgcls.datasets.dataset import fingerprint_of_file
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import naming, regular, write_text
from imgcls.runtime.cache_folder import cache_folder

log = logging.getLogger(__name__)

_LAYOUT = 3  # of the remembered files
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)  # WebDataset's: up to the first dot of the name

_MOST = 2**20  # bytes of a label, or of a header beside a member
_BESIDE = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


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


_INDEX = TypeAdapter(Index)


def remembered_index(path: str, parts: Parts) -> Index:
    """Return the index of a shard: from the cache folder, if it was indexed before and has not changed since.

    Raises:
        ConfigError: As ``index_shard`` does.
    """
    file = _remembered_file(path, parts)
    try:
        with open(file, "rb", opener=regular) as remembered:
            return _index_of(remembered.read())
    except (OSError, ValueError):  # not there, or not ours
        index = index_shard(path, parts)
    try:
        with naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(index._asdict()))
    except OSError as error:
        log.info("%s: the shard is indexed anew in each run", error)
    return index


def _index_of(content: bytes) -> Index:
    index = _INDEX.validate_json(content, strict=True)
    if len({len(values) for values in (index.key, index.offset, index.size, index.content, index.label)}) > 1:
        raise ValueError("lists of several lengths")
    return index


def _remembered_file(path: str, parts: Parts) -> Path:
    status = os.stat(path)
    known_by = [_LAYOUT, os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, *parts]
    return cache_folder() / "shards" / f"{blake2b(json.dumps(known_by).encode(), digest_size=16).hexdigest()}.json"


def index_shard(path: str, parts: Parts) -> Index:
    """Read a shard once, from end to end, and list its samples.

    Raises:
        ConfigError: Names the shard and the key: no uncompressed tar file, a member that is there twice, a sample
            without image or label or with two images, a label that cannot be read; or the position where it is damaged.
    """
    samples: dict[str, _Sample] = {}
    index = Index([], [], [], [], [], [])
    try:
        with open_shard(path) as shard, located(shard):
            for member in members(shard):
                match = _NAME.fullmatch(member.name)
                if match is None or not member.isreg():
                    index.ignored.extend([] if member.isdir() else [member.name])
                    continue
                sample = samples.setdefault(match[1], _Sample(f"{path}: {match[1]}"))
                sample.add(match[2].lower(), member, shard, parts)
    except tarfile.TarError as error:
        raise ConfigError(f"{path}: {error}; make or copy it again") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    for key, sample in samples.items():
        if sample.image is None and sample.label is None:
            index.ignored.extend(sample.members.values())
        else:
            _append(index, key, sample, parts)
    return index


class _Header(tarfile.TarInfo):
    """A header that is whole and small; tarfile takes a damaged one for the end, and reads any number of bytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member that a block describes."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # of the end
            raise tarfile.ReadError("a whole header or the end mark should be there") from error
        if member.type in _BESIDE and member.size > _MOST:
            raise tarfile.ReadError(f"a name or header of {member.size:,} bytes; at most {_MOST:,} are read")
        return member


def open_shard(path: str, stream: IO[bytes] | None = None) -> tarfile.TarFile:
    """Open a tar file, or a stream of one that may be compressed.

    Raises:
        ReadError: If it is none.
    """
    try:
        if stream is not None:
            return tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header)
        return tarfile.open(path, "r:", tarinfo=_Header)
    except tarfile.TarError as error:
        kind = "tar file" if stream is not None else "tar file that is not compressed"
        raise tarfile.ReadError(f"cannot be read as a {kind}: {error}") from error


def members(shard: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a shard, which must be whole up to its end mark.

    Raises:
        ReadError: If it is not.
    """
    try:
        for member in shard:
            if member.size < 0:
                raise tarfile.ReadError(f"a member of {member.size} bytes")
            yield member
    except ValueError as error:
        raise tarfile.ReadError(f"a header that cannot be read ({error})") from error
    _check_end(shard)


@contextmanager
def located(shard: tarfile.TarFile) -> Iterator[None]:
    """Say where a shard is damaged.

    Raises:
        ReadError: Names the position.
    """
    try:
        yield
    except tarfile.TarError as error:
        raise tarfile.ReadError(f"damaged or cut near byte {shard.offset:,}: {error}") from error


def _check_end(shard: tarfile.TarFile) -> None:
    """Demand two blocks of zeros, and nothing but zeros behind them."""
    file = shard.fileobj
    if file is None or file.tell() != shard.offset + tarfile.BLOCKSIZE:  # else it was a block of zeros
        raise tarfile.ReadError("a header that cannot be read")
    size = 0
    while chunk := file.read(_MOST):
        if chunk.count(0) < len(chunk):
            raise tarfile.ReadError("an end mark, but data behind it")
        size += len(chunk)
    if size < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the second half of the end mark is missing")


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
            refuse_sparse(member, self.where)
            self.image, self.content = member, fingerprint_of_file(_opened(shard, member))
        elif extension == parts.label_key:
            self.label = label_of(label_bytes(shard, member, self.where), parts, self.where)


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


def _opened(shard: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return shard.extractfile(member) or io.BytesIO()


def refuse_sparse(member: tarfile.TarInfo, where: str) -> None:
    """Refuse a member that a few bytes could blow up to any size.

    Raises:
        ConfigError: If it is one; ``where`` names the sample.
    """
    if member.issparse():
        raise ConfigError(f"{where}: {member.name} is stored as a sparse file; pack the shard without")


def image_bytes(shard: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    """Return the content of an image.

    Raises:
        ConfigError: If it is a sparse file; ``where`` names the sample.
    """
    refuse_sparse(member, where)
    return _opened(shard, member).read()


def label_bytes(shard: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    """Return the content of a label.

    Raises:
        ConfigError: If it is too large for one; ``where`` names the sample.
    """
    refuse_sparse(member, where)
    if member.size > _MOST:
        raise ConfigError(f"{where}: the label {member.name} has {member.size:,} bytes; it may have {_MOST:,}")
    return _opened(shard, member).read()


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
