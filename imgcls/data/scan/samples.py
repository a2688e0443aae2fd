"""Scan results of a run: each dataset is scanned once, however many splits and callers need it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.scan.files import HashKind, fingerprints, unreadable
from imgcls.datasets.dataset import ImageDataset, JoinedDataset

Hashes = NDArray[Any]
"""The hash of each row of a dataset; None if unknown."""


class SampleScan:
    """Scans headers and contents of samples, and keeps the results while the datasets exist."""

    def __init__(self) -> None:
        self._datasets: dict[int, ImageDataset] = {}  # kept alive, so that an id is not reused
        self._unreadable: dict[int, dict[int, str]] = {}
        self._hashes: dict[tuple[int, HashKind], Hashes] = {}

    def unreadable(self, data: ImageDataset) -> dict[int, str]:
        """Return row -> reason for each sample whose header cannot be read."""
        self._datasets[id(data)] = data
        if id(data) not in self._unreadable:
            self._unreadable[id(data)] = unreadable(data)
        return self._unreadable[id(data)]

    def hashes(self, data: ImageDataset, rows: Iterable[int], kind: HashKind) -> list[str]:
        """Return the content hash of rows of a dataset."""
        wanted = np.fromiter(rows, dtype=np.intp)
        if isinstance(data, JoinedDataset):
            return self._joined(data, wanted, kind)
        self._datasets[id(data)] = data
        known = self._hashes.setdefault((id(data), kind), np.full(len(data.samples), None, dtype=object))
        new = wanted[known[wanted] == None]  # noqa: E711 - elementwise
        if len(new):
            known[new] = fingerprints(data, new, kind)
        found: list[str] = known[wanted].tolist()
        return found

    def _joined(self, data: JoinedDataset, wanted: NDArray[np.intp], kind: HashKind) -> list[str]:
        found = np.full(len(wanted), None, dtype=object)
        start = 0
        for part in data.parts:
            of_part = (wanted >= start) & (wanted < start + len(part.samples))
            found[of_part] = self.hashes(part, wanted[of_part] - start, kind)
            start += len(part.samples)
        hashes: list[str] = found.tolist()
        return hashes

    def set_hashes(self, data: ImageDataset, kind: HashKind, hashes: Hashes) -> None:
        """Set the hashes that another process has computed."""
        self._datasets[id(data)] = data
        self._hashes[id(data), kind] = hashes

    def __reduce__(self) -> tuple[type["SampleScan"], tuple[()]]:
        """Pickle without the datasets: a spawned worker computes no hashes."""
        return SampleScan, ()
