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
from zlib import crc32

import cv2
import numpy as np
import pytest
import yaml
from filelock import lock_descriptor

from imgcls.check.image_alignment import shrink
from imgcls.cli.main import main
from imgcls.data.scan import files, parallel
from imgcls.data.splitting.split_report import split_table
from imgcls.datasets.dataset import ImageDataset, PathListDataset
from imgcls.errors import RunError
from imgcls.images import Pixels
from imgcls.runtime.signals import Stopped, listening, postponed
from tests.data.test_datamodule import module
from tests.helpers.own import Squares
from tests.helpers.runs import arguments, program
from tests.runtime.test_signals import heard_interrupts

LR = "model.init_args.optimizer_config.lr"

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
    data.splitter.refuse_leaks()
    data.state_dict()
    split_table(data.splitter)
    assert dict(READS) == dict.fromkeys(range(60), 1)


@pytest.fixture
def read_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("READ_LOG", str(tmp_path / "reads"))
    return tmp_path / "reads"


def line_for(model: Path, out: Path) -> list[str]:
    """A command line on 60 samples of a class of one's own, 12 of which are held out; one epoch."""
    data = '{"class_path": "tests.helpers.own.Logged", "init_args": {"count": 60}}'
    return arguments(Path("x"), model, out, f"--data.dataset_classes.train={data}", "--trainer.max_epochs=1")


def test_a_fit_reads_each_sample_of_a_class_once_to_hash_and_once_an_epoch(
    tiny_model: Path, tmp_path: Path, read_log: Path
) -> None:
    """60 to hash, 48 + 12 in the epoch, 12 in the evaluation of the best, and one on which each list is tried."""
    main(["fit", *line_for(tiny_model, tmp_path)])
    reads = Counter(read_log.read_text().split("\n")[:-1])
    examples = 3
    assert reads.total() == 60 + 60 + 12 + examples


def test_trials_of_a_search_hash_nothing_again(tiny_model: Path, tmp_path: Path, read_log: Path) -> None:
    """60 before the first one; then 48 + 12 for each, 12 at the end, and one each time a list is tried."""
    space = {LR: {"distribution": "uniform", "low": 0.001, "high": 0.01}}
    optuna = {"tune": True, "n_trials": 3, "pruner": "none", "search_spaces": space}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump({"optuna": optuna}))
    main(["tune", f"--config={tmp_path}/tune.yaml", *line_for(tiny_model, tmp_path)])
    assert len(read_log.read_text().splitlines()) == 60 + 3 * (60 + 2 + 12 + 1)


def test_of_two_processes_the_first_hashes(tiny_model: Path, tmp_path: Path, read_log: Path) -> None:
    line = line_for(tiny_model, tmp_path)
    run = program("fit", *line, "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.limit_val_batches=0")
    assert run.returncode == 0, run.stderr
    reads = Counter(line.split()[0] for line in read_log.read_text().splitlines())
    assert reads["1"] < 30  # 24 in its half of the epoch, and examples


# -- many files


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageDataset:
    """200 files, which are many here."""
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parallel, "_MANY", 1)
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
    assert len(set(files.fingerprints(few, range(200)))) == 200
    assert len(submitted) == 4


def test_processes_are_forks_whatever_is_the_default(few: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a script of the user's needs no guard of ``__main__``; only a fork knows what is patched here."""
    spawn = multiprocessing.get_context("spawn")
    default = "multiprocessing.context._default_context"
    monkeypatch.setattr(f"{default}._actual_context", None)
    monkeypatch.setattr(f"{default}._default_context", spawn)
    monkeypatch.setattr(files, "check_header", lambda path, max_pixels: (7, 7))
    assert files.unreadable(few) == {}


def test_a_process_that_is_killed_is_a_plain_error(few: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "check_header", lambda path, max_pixels: os._exit(1))
    with pytest.raises(RunError, match=r"reading headers: a process was killed \(probably out of memory\)"):
        files.unreadable(few)


def test_hashing_is_ended_by_ctrl_c() -> None:
    """After the files that the threads have begun."""
    begun: list[int] = []

    def slowly(item: int) -> None:
        begun.append(item)
        time.sleep(0.1)

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with heard_interrupts(), pytest.raises(KeyboardInterrupt):
        list(parallel._mapped(ThreadPoolExecutor(4), slowly, range(5000), "reading"))
    assert len(begun) < 4 * 64


@pytest.mark.parametrize("waits", ["threads", "one thread", "lock"])
def test_looking_at_images_within_a_fit_hears_a_signal(
    waits: str, few: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer's hold allows it while the next file is waited for."""

    def fingerprint(data: ImageDataset, index: int) -> str:
        time.sleep(0.02)
        return f"hash {index}"

    monkeypatch.setattr(PathListDataset, "fingerprint", fingerprint)
    if waits == "one thread":
        monkeypatch.setattr(files, "_is_thread_safe", lambda _: False)
    monkeypatch.setattr(parallel, "_THREADS", 1)
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / f"scan-{crc32(os.fsencode(min(few.sample_paths))) % files._LOCKS:03d}.lock"
    with path.open("w") as other:
        if waits == "lock":
            lock_descriptor(other.fileno())
            threading.Timer(3, other.close).start()  # or a failed test would last for ever
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        start = time.monotonic()
        with listening(), pytest.raises(Stopped), postponed(waits=True):
            files.fingerprints(few, range(200))
        assert time.monotonic() - start < 2.5


def _look(log: Path, paths: list[str], barrier: Any) -> None:
    def header(path: str, max_pixels: int) -> tuple[int, int]:
        _write(log, f"header {path}")
        return 7, 7

    def fingerprint(data: ImageDataset, index: int) -> str:
        _write(log, f"content {data.sample_paths[index]}")
        return f"hash {index}"

    files.check_header = header  # type: ignore[attr-defined, assignment]  # this process is a fork, which ends here
    PathListDataset.fingerprint = fingerprint  # type: ignore[assignment, method-assign]
    data = PathListDataset(paths)
    barrier.wait()
    assert files.unreadable(data) == {}
    assert files.fingerprints(data, range(200)) == [f"hash {index}" for index in range(200)]


def _write(log: Path, line: str) -> None:
    time.sleep(0.002)
    with log.open("a") as file:
        file.write(f"{line}\n")


def test_processes_that_begin_at_once_share_what_they_find(
    few: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ranks do that a scheduler starts: each file is read once, though all of them want all."""
    monkeypatch.setattr(parallel, "_MANY", 1000)
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(3)
    ranks = [fork.Process(target=_look, args=(tmp_path / "log", few.sample_paths, barrier)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    seen = Counter((tmp_path / "log").read_text().splitlines())
    assert (len(seen), set(seen.values())) == (400, {1})


def test_what_was_hashed_before_an_interruption_is_remembered(
    few: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BATCH", 10)
    hashed: list[int] = []

    def fingerprint(data: ImageDataset, index: int) -> str:
        hashed.append(index)
        if len(hashed) == 150:
            raise KeyboardInterrupt
        return f"hash {index}"

    monkeypatch.setattr(PathListDataset, "fingerprint", fingerprint)
    monkeypatch.setattr(parallel, "_THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        files.fingerprints(few, range(200))
    assert files.fingerprints(few, range(200)) == [f"hash {index}" for index in range(200)]
    assert len(hashed) <= 150 + 200 - 120  # two chunks of 64 were whole


# -- check


def test_shrink_marks_what_is_at_its_highest(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    expected = np.where(pixels.max(axis=2) >= 254, 255, 0).astype(np.uint8)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    both = cv2.resize(np.dstack([grey, expected]), (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(shrink(pixels, 64), both)
