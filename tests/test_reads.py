"""Each image is read or hashed once a run, and what reads them can be ended at any moment."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from imgcls.check import near_duplicates as near
from imgcls.data.scan import files as survey
from imgcls.datasets.dataset import ImageDataset, PathListDataset
from imgcls.errors import RunError
from imgcls.images import Pixels
from tests.own import Squares
from tests.test_datamodule import module

READS: Counter[int] = Counter()


class Counted(Squares):
    """Counts how often each sample is read."""

    def read(self, index: int) -> Pixels:
        READS[index] += 1
        return super().read(index)


@pytest.fixture(autouse=True)
def _forget() -> None:
    READS.clear()


def test_a_class_of_ones_own_is_read_once_before_the_first_step() -> None:
    data = module(Counted(60))
    data.partition.refuse_leaks()
    data.state_dict()
    data.partition.table()
    assert dict(READS) == dict.fromkeys(range(60), 1)


# -- many files


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageDataset:
    """200 files, which are many here."""
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(survey, "_MANY", 1)
    for number in range(200):
        (tmp_path / f"{number}.png").write_bytes(b"no image %d" % number)
    return PathListDataset([str(tmp_path / f"{number}.png") for number in range(200)])


def test_a_future_takes_many_files(few: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = []
    submit = ThreadPoolExecutor.submit

    def counting(*arguments: Any, **more: Any) -> Any:
        submitted.append(1)
        return submit(*arguments, **more)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counting)
    assert len(set(survey.fingerprints(few, range(200)))) == 200
    assert len(submitted) == 4


def test_processes_are_forks_whatever_is_the_default(few: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a script of the user's needs no guard of ``__main__``; only a fork knows what is patched here."""
    spawn = multiprocessing.get_context("spawn")
    default = "multiprocessing.context._default_context"
    monkeypatch.setattr(f"{default}._actual_context", None)
    monkeypatch.setattr(f"{default}._default_context", spawn)
    monkeypatch.setattr(survey, "check_header", lambda path, max_pixels: (7, 7))
    assert survey.unreadable(few) == {}


def test_a_process_that_is_killed_is_a_plain_error(few: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "check_header", lambda path, max_pixels: os._exit(1))
    with pytest.raises(RunError, match=r"reading headers: a process was killed \(probably out of memory\)"):
        survey.unreadable(few)


def test_hashing_is_ended_by_ctrl_c() -> None:
    """After the files that the threads have begun."""
    begun: list[int] = []

    def slowly(item: int) -> None:
        begun.append(item)
        time.sleep(0.1)

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(survey._mapped(ThreadPoolExecutor(4), slowly, range(5000), "reading"))
    assert len(begun) < 4 * 64


# -- check


def test_shrink_marks_what_is_at_its_highest(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    expected = np.where(pixels.max(axis=2) >= 254, 255, 0).astype(np.uint8)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    both = cv2.resize(np.dstack([grey, expected]), (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(near.shrink(pixels, 64), both)
