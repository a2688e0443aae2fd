"""Faults of the data, injected into whole runs in processes of their own; limits of time and memory are asserted here.

``nox -s faults`` runs them.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from imgcls.datasets.folder_scan import COMPANION_SUFFIXES
from tests.conftest import write_class_folders
from tests.helpers.corpus import write_corpus
from tests.helpers.runs import arguments

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]


@dataclass
class Ended:
    """How a process ended.

    Args:
        code: Its exit code, negative for a signal.
        out: What it printed.
        err: What it said.
        peak_mb: The most memory that it held, without its workers.
        seconds: How long it ran.
    """

    code: int
    out: str
    err: str
    peak_mb: float
    seconds: float

    @property
    def last(self) -> str:
        """The last line that it said."""
        return self.err.strip().splitlines()[-1]


def run(*line: str, cwd: Path, limit: float = 120) -> Ended:
    """Run the program; a process that outlives the limit is killed, which shows in its code."""
    start = time.monotonic()
    out, err = cwd / "out.txt", cwd / "err.txt"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)])}
        process = subprocess.Popen(
            [sys.executable, "-m", "imgcls", *line], stdout=stdout, stderr=stderr, cwd=cwd, env=environment
        )
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.setitimer(signal.ITIMER_REAL, limit)
        _, status, usage = os.wait4(process.pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    said, complained = (path.read_text(errors="replace") for path in (out, err))
    ended = Ended(process.returncode, said, complained, usage.ru_maxrss / 1024, time.monotonic() - start)
    assert "Traceback" not in ended.err, ended.err
    return ended


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "photos", 20)


@pytest.fixture
def fit(folder: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., Ended]:
    return lambda *more: run("fit", *arguments(folder, tiny_model, tmp_path / "runs", *more), cwd=tmp_path)


# -- F18: a read that never ends


def test_f18_a_pipe_is_refused_by_the_scan(folder: Path, fit: Callable[..., Ended]) -> None:
    os.mkfifo(folder / "red/pipe.jpg")
    ended = fit()
    assert ended.code == 2
    assert f"{folder}/red/pipe.jpg: is not a regular file (a pipe, socket or device)" in ended.err
    assert ended.last.startswith("1 of 61 images in train cannot be read")


def test_f18_a_worker_that_stops_is_named_with_its_file(
    folder: Path, fit: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "stopping.py").write_text(
        "import os, signal\nfrom imgcls import FolderImageDataset\n"
        "class Stopping(FolderImageDataset):\n"
        "    def read(self, index):\n"
        "        if self.samples['path'].iat[index].endswith('red/007.png'):\n"
        "            os.kill(os.getpid(), signal.SIGSTOP)\n"
        "        return super().read(index)\n"
    )
    train = json.dumps({"class_path": "stopping.Stopping", "init_args": {"root": str(folder)}})
    validation = write_class_folders(tmp_path / "validation", 2, seed=7)
    more = (f"--data.dataset_classes.validation={validation}", "--data.num_workers=1", "--data.timeout=5")
    ended = fit(f"--data.dataset_classes.train={train}", *more)
    assert ended.code == 1
    assert f"no batch for 5 s while reading {folder}/red/007.png; check that the file can be read" in ended.last


def test_f17_a_killed_worker_is_named_with_its_file(folder: Path, fit: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(
        "import os, signal\nfrom imgcls import FolderImageDataset\n"
        "class Dying(FolderImageDataset):\n"
        "    def read(self, index):\n"
        "        if self.samples['path'].iat[index].endswith('red/007.png'):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().read(index)\n"
    )
    train = json.dumps({"class_path": "dying.Dying", "init_args": {"root": str(folder)}})
    validation = write_class_folders(tmp_path / "validation", 2, seed=7)
    more = (f"--data.dataset_classes.validation={validation}", "--data.num_workers=1")
    ended = fit(f"--data.dataset_classes.train={train}", *more)
    assert ended.code == 1
    assert "a data worker was killed (probably out of memory): lower data.num_workers" in ended.last
    assert f"the last file that it read: {folder}/red/007.png" in ended.last


# -- F20, F35: a hostile folder


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[bytes], list[bytes]]:
    """Two classes, one of good files and one of all that the corpus has; with the good and the bad paths."""
    root = write_class_folders(tmp_path / "corpus", 30, seed=3)
    cases = write_corpus(root / "odd")
    named_as_text = COMPANION_SUFFIXES  # left out by a rule, whatever they hold
    good = [os.fsencode(case.path) for case in cases if case.expected.good and case.path.suffix not in named_as_text]
    bad = [os.fsencode(case.path) for case in cases if not case.expected.good and _is_there(case.path)]
    return root, good, bad


def _is_there(path: Path) -> bool:
    """Whether a scan finds a file there that this user cannot read as an image; root may read what is locked."""
    return os.path.lexists(path) and not path.is_dir() and not (path.name == "locked.png" and os.geteuid() == 0)


def test_f20_an_error_lists_the_bad_files_before_the_first_step(
    corpus: tuple[Path, list[bytes], list[bytes]], tiny_model: Path, tmp_path: Path
) -> None:
    root, _, _ = corpus
    ended = run("fit", *arguments(root, tiny_model, tmp_path / "runs"), cwd=tmp_path)
    assert ended.code == 2
    assert "cannot be read; remove or replace them, or skip them: --data.on_bad_image skip" in ended.last
    assert not (tmp_path / "runs").exists()


def test_f20_skip_accounts_for_every_file_once(
    corpus: tuple[Path, list[bytes], list[bytes]], fit: Callable[..., Ended], tiny_model: Path, tmp_path: Path
) -> None:
    root, good, bad = corpus
    baseline = fit()
    more = ("--data.on_bad_image=skip", "--data.max_bad_fraction=0.9", "--data.num_workers=0")
    ended = run("fit", *arguments(root, tiny_model, tmp_path / "runs", *more), cwd=tmp_path, limit=300)
    assert ended.code == 0
    assert ended.peak_mb < baseline.peak_mb + 1000
    folder = Path(ended.out.splitlines()[-1])
    account = json.loads((folder / "data.json").read_text())
    unused = [os.fsencode(item["path"]) for item in account["unused"]]
    assert len(unused) == len(set(unused))
    assert not set(good) & set(unused)
    assert set(bad) <= set(unused)
    there = [os.fsencode(path) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    assert account["used"] == len(set(there) - set(unused))


def test_f35_bombs_are_refused_from_their_headers(
    corpus: tuple[Path, list[bytes], list[bytes]], fit: Callable[..., Ended], folder: Path, tmp_path: Path
) -> None:
    root, _, _ = corpus
    baseline = fit()
    bombs = sorted((root / "odd/bombs").iterdir())
    assert len(bombs) >= 4
    for bomb in bombs:
        shutil.copy(bomb, folder / "red")
    ended = fit("--data.on_bad_image=skip", "--data.max_bad_fraction=0.5")
    assert ended.code == 0
    assert ended.peak_mb < baseline.peak_mb + 300
    checkpoint = next(tmp_path.glob("runs/run/version_0/checkpoints/best.ckpt"))
    predicted = run("predict", f"--ckpt_path={checkpoint}", f"--images={folder}", "--output=p.csv", cwd=tmp_path)
    assert predicted.code == 0
    assert predicted.peak_mb < baseline.peak_mb + 300
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert (table["error"] != "").sum() >= 4


# -- F21 to F24


def test_f21_too_many_bad_images(fit: Callable[..., Ended], folder: Path) -> None:
    for path in list(folder.glob("*/*.png"))[:48]:
        path.write_bytes(path.read_bytes()[:20])
    ended = fit("--data.on_bad_image=skip")
    assert ended.code == 2
    assert "48 of 60 images in train cannot be read (limit 0.01: data.init_args.max_bad_fraction)" in ended.last


def test_f22_images_change_while_the_run_reads_them(fit: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vandal.py").write_text(
        "from PIL import Image\nfrom lightning.pytorch import Callback\n"
        "class Vandal(Callback):\n"
        "    def on_train_start(self, trainer, model):\n"
        "        paths = [trainer.datamodule.split('train').path(place) for place in range(3)]\n"
        "        open(paths[0], 'wb').write(bytes(900))\n"
        "        import os; os.unlink(paths[1])\n"
        "        Image.new('RGB', (900, 700)).save(paths[2])\n"
    )
    whole = fit()
    policy = ("--data.on_bad_image=skip", "--data.max_bad_fraction=0.1")
    ended = fit("--trainer.callbacks+=vandal.Vandal", *policy)
    assert (whole.code, ended.code) == (0, 0)
    lines = [line for line in ended.err.splitlines() if line.startswith("skipped in train: ")]
    assert len(lines) == 2
    steps = [pd.read_csv(tmp_path / f"runs/run/version_{n}/metrics.csv")["step"].to_list() for n in (0, 1)]
    assert steps[0] == steps[1]
    shutil.rmtree(folder)
    write_class_folders(folder, 20)
    strict = fit("--trainer.callbacks+=vandal.Vandal")
    assert strict.code == 2
    assert ": No such file or directory" in strict.last or ": holds only zeros" in strict.last


@pytest.mark.parametrize("kind", ["empty", "absent", "none"])
def test_f23_no_validation_images(kind: str, fit: Callable[..., Ended], tmp_path: Path) -> None:
    validation = tmp_path / "validation"
    if kind == "empty":
        (validation / "red").mkdir(parents=True)
    options = ["--trainer.limit_val_batches=0", "--experiment.monitor=validation_f1_score"]
    ended = fit(*options if kind == "none" else [f"--data.dataset_classes.validation={validation}"])
    assert ended.code == 2
    assert {
        "empty": f"validation: no image in {validation}",
        "absent": f"Folder '{validation}' does not exist",
        "none": "no metric is called 'validation_f1_score'",
    }[kind] in ended.last
    assert not (tmp_path / "runs").exists()


def test_f24_classes_of_checkpoint_and_data_differ(fit: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    assert fit().code == 0
    checkpoint = f"--ckpt_path={tmp_path}/runs/run/version_0/checkpoints/best.ckpt"
    test = write_class_folders(tmp_path / "test", 4, seed=9)

    def tested() -> Ended:
        return run("test", checkpoint, f"--data.dataset_classes.test={test}", cwd=tmp_path)

    whole = tested()
    assert whole.code == 0
    shutil.rmtree(test / "blue")
    missing = tested()
    assert missing.code == 0
    (test / "green").rename(test / "grün")
    renamed = tested()
    assert renamed.code == 2
    assert "test: classes 'grün' are not among the model's classes, 'blue', 'green', 'red'" in renamed.last
    wrong = fit("--model.num_classes=7")
    assert wrong.code == 2
    assert "num_classes must be 3, the number of classes of the data ('blue', 'green', 'red'), got 7" in wrong.last


# -- F25, F27


def test_f25_a_hundred_thousand_files(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "many" / f"class{number}").mkdir(parents=True)
        for image in range(1000):
            (tmp_path / "many" / f"class{number}" / f"{image}.jpg").touch()
    script = (
        "import os, resource, sys, time\n"
        "from imgcls.datasets.folder import FolderImageDataset\n"
        "from imgcls.data.scan.files import unreadable\n"
        "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6\n"
        "FolderImageDataset(sys.argv[1]).samples\n"  # warm
        "before, start = rss(), time.perf_counter()\n"
        "data = FolderImageDataset(sys.argv[1])\n"
        "count = len(data.samples)\n"
        "print(count, time.perf_counter() - start, rss() - before)\n"
    )
    line = [sys.executable, "-c", script, str(tmp_path / "many")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    count, seconds, megabytes = map(float, done.stdout.split())
    assert count == 100_000
    assert seconds < 0.5
    assert megabytes < 40


def test_f27_predictions_hold_every_odd_name(
    corpus: tuple[Path, list[bytes], list[bytes]], fit: Callable[..., Ended], tmp_path: Path
) -> None:
    root, good, bad = corpus
    assert fit().code == 0
    checkpoint = f"--ckpt_path={tmp_path}/runs/run/version_0/checkpoints/best.ckpt"
    odd = root / "odd"
    ended = run("predict", checkpoint, f"--images={odd.name}", f"--output={tmp_path}/p.csv", cwd=root)
    assert ended.code == 0
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    found = {os.path.normpath(os.path.join(os.fsencode(root), os.fsencode(row["path"]))): row for row in rows}
    assert len(found) == len(rows)
    assert {path for path, row in found.items() if not row["error"]} >= set(good)
    assert {path for path, row in found.items() if row["error"]} >= set(bad) & set(found)
    assert not [row for row in rows if row["path"].startswith(("=", "+", "-", "@", "\t", "\r"))]
    table = pd.read_csv(tmp_path / "p.csv", encoding_errors="surrogateescape", dtype=object)
    assert [os.fsencode(path) for path in table["path"]] == [os.fsencode(row["path"]) for row in rows]
