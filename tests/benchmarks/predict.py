"""Memory and rate of ``imgcls predict`` on many rows.

``python -m tests.benchmarks.predict [--rows N] [--workers N] [--embeddings] [--parquet]``: a tiny random network, and
paths that are links to ten small photos. Prints the memory of the program, and of it with its loader workers (each
shared page counted once), when a tenth of the rows and when all are predicted; and the rate beside that of the bare
forward pass on a ready batch, which takes turns with the prediction in the same process.

With ``OMP_NUM_THREADS=1`` on two cores, one computes and one loads. 1,000,000 rows should need less than 20 MB more
than 100,000, at 0.9 of the bare rate.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image

import imgcls
from imgcls.cli.main import main
from tests.conftest import write_class_folders

TURNS = 20
FILES = 1000  # of a folder; a folder is linked as often as rows need
TINY = Path(__file__).parents[2] / "configs/tiny-resnet"


class Rate(NamedTuple):
    """Images per second by the clock, and per second of processor time of the program without its workers."""

    clock: float
    processor: float


class Probe(pl.Callback):
    """Measures a prediction.

    Args:
        rows: Number of images.
    """

    found: "Probe"

    def __init__(self, rows: int) -> None:
        Probe.found = self
        self.memory: dict[int, tuple[float, float]] = {}
        self.rates: list[tuple[Rate, Rate]] = []
        """Those of the prediction and of the bare forward pass, in each turn."""
        self._turn = rows // TURNS
        self._rows = self._begun = 0
        self._start = (0.0, 0.0)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the end of a turn."""
        self._rows += len(batch["path"])
        if self._rows < self._begun + self._turn:
            return
        if self._begun:  # the first batches wait for the workers
            rate = rate_since(self._start, self._rows - self._begun)
            self.rates.append((rate, bare_rate(trainer, pl_module, batch["image"].clone())))
        self.memory[self._rows] = memory()
        self._begun, self._start = self._rows, now()


def now() -> tuple[float, float]:
    """Return the clock, and the processor time of this process without its workers."""
    return time.perf_counter(), time.process_time()


def rate_since(start: tuple[float, float], images: int) -> Rate:
    """Return the images per second since ``now``."""
    clock, processor = (end - begin for begin, end in zip(start, now(), strict=True))
    return Rate(images / clock, images / processor)


def bare_rate(trainer: pl.Trainer, model: pl.LightningModule, images: torch.Tensor) -> Rate:
    """Return the rate of the forward pass on a ready batch, measured for two seconds."""
    start, done = now(), 0
    while time.perf_counter() - start[0] < 2:
        with trainer.precision_plugin.forward_context():
            torch.softmax(model(images), 1)
        done += len(images)
    return rate_since(start, done)


def memory() -> tuple[float, float]:
    """Return MB of this process, and of it with its workers, without program files, which all processes share."""
    children = [child.pid for child in multiprocessing.active_children()]
    both = sum(used(pid, "Pss_Anon", "Pss_Shmem") for pid in [os.getpid(), *children] if pid is not None)
    return used(os.getpid(), "Anonymous"), both


def used(pid: int, *names: str) -> float:
    """Return MB of a process that Linux counts under some names."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in names) / 1e3


def write_links(folder: Path, rows: int) -> Path:
    """Write small photos, and a list of paths that are links to them."""
    generator = np.random.default_rng(0)
    (folder / "files").mkdir()
    for number in range(10):
        Image.fromarray(generator.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    for number in range(FILES):
        os.link(folder / f"{number % 10}.jpg", folder / f"files/{number:03d}.jpg")
    for number in range(-(-rows // FILES)):
        (folder / f"{number:04d}").symlink_to("files")
    with (folder / "list.csv").open("w") as file:
        file.write("path\n")
        file.writelines(f"{row // FILES:04d}/{row % FILES:03d}.jpg\n" for row in range(rows))
    return folder / "list.csv"


def trained(folder: Path, model: str, side: int) -> Path:
    """Return the checkpoint of a short fit."""
    photos = write_class_folders(folder / "photos", 20)
    data = {"dataset_classes": {"train": str(photos)}, "num_workers": 0, "image_size": side}
    network = {"model_name": model, "pretrained": False}
    run = imgcls.fit(
        data=data, model=network, trainer={"max_epochs": 1}, experiment={"output_dir": str(folder)}
    ).run_folder
    assert run is not None
    return run / "checkpoints/best.ckpt"


def measure() -> None:
    """Predict, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--side", type=int, default=64, help="pixels; small ones take longer to load than to classify")
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--parquet", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        line = [
            "predict",
            f"--ckpt_path={trained(folder, given.model, given.side)}",
            f"--images={write_links(folder, given.rows)}",
        ]
        line += [f"--data.num_workers={given.workers}", f"--data.batch_size={given.batch_size}"]
        line += [f"--output={folder}/p{'.parquet' if given.parquet else '.csv'}", "--trainer.precision=32"]
        line += [f"--embeddings={folder}/e.npy"] * given.embeddings
        probe = f"{{class_path: {__spec__.name}.Probe, init_args: {{rows: {given.rows}}}}}"
        start = time.perf_counter()
        main([*line, f"--trainer.callbacks={probe}"])
        print(f"{given.rows:,} rows in {time.perf_counter() - start:.0f} s")
    from tests.benchmarks.predict import Probe as Used  # that of the class path, not of __main__

    report(Used.found)


def report(probe: Probe) -> None:
    """Print the memory and the rates."""
    rows = list(probe.memory)
    tenth = min(rows, key=lambda row: abs(row - rows[-1] / 10))
    for row in rows:
        print(f"after {row:,} rows: {probe.memory[row][0]:.1f} MB, with workers {probe.memory[row][1]:.1f} MB")
    own, both = (probe.memory[rows[-1]][part] - probe.memory[tenth][part] for part in (0, 1))
    print(f"growth from {tenth:,} to {rows[-1]:,}: {own:+.1f} MB, with workers {both:+.1f} MB")
    for name in Rate._fields:
        ours, bare = ([getattr(pair[part], name) for pair in probe.rates] for part in (0, 1))
        ratio = median(first / second for first, second in zip(ours, bare, strict=True))
        rates = f"predict {median(ours):.0f} images/s, bare forward {median(bare):.0f}"
        print(f"{name}: {rates}, ratio {ratio:.2f} (median of {len(ours)} turns)")


if __name__ == "__main__":
    measure()
