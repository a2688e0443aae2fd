"""Read tar files strictly: a damaged or truncated file is an error, and no member can fill the memory."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Self

from imgcls.errors import ConfigError

_LARGEST_TEXT = 2**20  # bytes of a label, or of an extended header
_EXTENDED_HEADERS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class _StrictHeader(tarfile.TarInfo):
    """A member whose header must be valid and small.

    tarfile (Python 3.11 to 3.14) takes a damaged header for the end of the file, and reads extended headers of any
    size.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member that a block describes."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # a block of zeros: the end
            raise tarfile.ReadError("expected a valid header or the end mark") from error
        if member.type in _EXTENDED_HEADERS and member.size > _LARGEST_TEXT:
            raise tarfile.ReadError(f"a name or header must have at most {_LARGEST_TEXT:,} bytes, got {member.size:,}")
        return member


def open_tar(path: str, stream: IO[bytes] | None = None) -> tarfile.TarFile:
    """Open an uncompressed tar file, or a stream of a tar file that may be compressed.

    Raises:
        ReadError: If it is not a tar file.
    """
    try:
        if stream is not None:
            return tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictHeader)
        return tarfile.open(path, "r:", tarinfo=_StrictHeader)
    except tarfile.TarError as error:
        kind = "a tar file" if stream is not None else "an uncompressed tar file"
        raise tarfile.ReadError(f"cannot be read as {kind}: {error}") from error


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file, up to and including a check of its end mark.

    Raises:
        ReadError: If the file is damaged or truncated.
    """
    try:
        for member in tar:
            if member.size < 0:
                raise tarfile.ReadError(f"a member of {member.size} bytes")
            yield member
    except ValueError as error:
        raise tarfile.ReadError(f"a header that cannot be read ({error})") from error
    _check_end(tar)


@contextmanager
def naming_position(tar: tarfile.TarFile) -> Iterator[None]:
    """Add the position to errors in a tar file.

    Raises:
        ReadError: Names the byte.
    """
    try:
        yield
    except tarfile.TarError as error:
        raise tarfile.ReadError(f"damaged or truncated near byte {tar.offset:,}: {error}") from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Require two blocks of zeros, and only zeros after them."""
    file = tar.fileobj
    if file is None or file.tell() != tar.offset + tarfile.BLOCKSIZE:  # tarfile stopped at something else
        raise tarfile.ReadError("a header that cannot be read")
    size = 0
    while block := file.read(_LARGEST_TEXT):
        if block.count(0) < len(block):
            raise tarfile.ReadError("data after the end mark")
        size += len(block)
    if size < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the second half of the end mark is missing")


def open_member(tar: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> IO[bytes]:
    """Open a member.

    Raises:
        ConfigError: If it is sparse, so that few bytes could expand to any size; ``where`` names the sample.
    """
    if member.issparse():
        raise ConfigError(f"{where}: {member.name} is stored as a sparse file; pack the shard without sparse files")
    return tar.extractfile(member) or io.BytesIO()


def label_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    """Return the content of a label.

    Raises:
        ConfigError: If it is sparse, or too large for a label; ``where`` names the sample.
    """
    file = open_member(tar, member, where)
    if member.size > _LARGEST_TEXT:
        raise ConfigError(
            f"{where}: the label {member.name} must have at most {_LARGEST_TEXT:,} bytes, got {member.size:,}"
        )
    return file.read()
