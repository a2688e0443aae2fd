"""Short content hashes by which samples are identified, whatever their names and folders."""

import os
from functools import partial
from hashlib import blake2b, file_digest
from typing import IO, BinaryIO

_hasher = partial(blake2b, digest_size=8)
_END = 64 * 1024  # bytes hashed at each end of a file by ``fingerprint_of_ends``


def fingerprint_of(content: bytes) -> str:
    """Return a 16-digit hexadecimal BLAKE2b hash of bytes."""
    return _hasher(content).hexdigest()


def fingerprint_of_file(file: IO[bytes]) -> str:
    """Return ``fingerprint_of`` the rest of an open file, read in blocks."""
    return file_digest(file, _hasher).hexdigest()  # type: ignore[arg-type]


def fingerprint_of_ends(file: BinaryIO, size: int, start: int = 0) -> str:
    """Return a hash of the size and both ends, of 64 kB, of a sample of ``size`` bytes from ``start`` in a file."""
    file.seek(start)
    first = file.read(min(size, _END))
    file.seek(start + max(size - _END, 0))
    return fingerprint_of(size.to_bytes(8, "little") + first + file.read(min(size, _END)))


def fingerprint_of_id(path: str) -> str:
    """Return a hash of a sample's id, for samples whose content cannot be read."""
    return fingerprint_of(os.fsencode(path))
