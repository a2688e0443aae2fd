"""Many texts in one block of memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_ENCODING = "utf-8", "surrogatepass"  # names of files that are not UTF-8 have surrogates


class PackedTexts(Sequence[str]):
    """Texts in one block of memory.

    A list has an object for each text, whose reference count changes when it is read: loader workers, which are forks,
    would copy the memory of all of them page by page.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode(*_ENCODING) for text in texts]
        self._starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._block = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._block[self._starts[number] : self._starts[number + 1]].decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))
