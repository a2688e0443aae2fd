"""12-megapixel JPEGs on one core, and ``fit`` on many of them: ``python -m tests.benchmarks.phone_photos [FILES]``.

The photos are scikit-learn's, enlarged, with noise, about 4 MB each. The first part prints processor time. The second
one, of FILES photos, fits a small network with ``create_dataset: auto``: images/s of each epoch beside those of the
step alone, measured from batches that lie in memory.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from sklearn.datasets import load_sample_images

from imgcls.cli.main import main as run
from imgcls.data.transforms.build import build_pipeline
from imgcls.data.transforms.model_transforms import eval_specs, less_cropped
from imgcls.data.transforms.needed_size import needed_side
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.data.transforms.presets import preset_specs
from imgcls.images import load_image
from imgcls.types import Preprocessing

SIZE, QUALITY, NOISE = (4000, 3000), 92, 6
ROUNDS = 15
EPOCHS = 4
CLASSES = 2


def write_photos(folder: Path) -> list[Path]:
    """Write two photos of 12 megapixels, and one that is turned by its EXIF orientation."""
    turned = Image.Exif()
    turned[0x112] = 6
    paths = []
    for number, pixels in enumerate(load_sample_images().images):
        large = np.asarray(Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC))
        noise = np.random.default_rng(number).normal(0, NOISE, (*large.shape[:2], 1))
        photo = Image.fromarray((large + noise).clip(0, 255).astype(np.uint8))
        paths.append(folder / f"{number}.jpg")
        photo.save(paths[-1], quality=QUALITY)
    photo.save(folder / "turned.jpg", quality=QUALITY, exif=turned)
    return [*paths, folder / "turned.jpg"]


def milliseconds(work: Callable[[], object]) -> float:
    """Processor time of a call, the median of some."""
    used = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        used.append(1000 * (time.process_time() - start))
    return median(used)


def print_costs(path: Path) -> None:
    """Print what reading, and reading and transforming, cost for one photo."""
    expected = Preprocessing(interpolation="bicubic")
    steps = build_pipeline(eval_specs(less_cropped(expected)), "eval")
    crops = build_pipeline(preset_specs("light", expected), "train")

    def cost(pipeline: Pipeline, min_side: int | None) -> str:
        decoding = milliseconds(lambda: load_image(path, min_side=min_side))
        seeds = iter(range(ROUNDS))
        whole = milliseconds(lambda: pipeline(load_image(path, min_side=min_side), next(seeds)))
        return f"decoding {decoding:4.0f} ms, with the transforms {whole:4.0f} ms"

    print(f"{path.name}, {path.stat().st_size / 2**20:.1f} MB")
    print(f"  evaluation, exact:   {cost(steps, None)}")
    print(f"  evaluation, scaled:  {cost(steps, needed_side(steps))}")
    print(f"  training, exact:     {cost(crops, None)}")
    print(f"  training (scaled):   {cost(crops, needed_side(crops))}")


class Clock(Callback):
    """Print images/s of each epoch, and those of its steps alone."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self._images, self._steps, self._first = 0, 0.0, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start a step; the first batch waits for the workers to start."""
        self._since = time.perf_counter()
        self._first = self._first or self._since

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a step."""
        self._end = time.perf_counter()
        self._steps += self._end - self._since
        self._images += len(batch["label"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print."""
        rate, own = self._images / (self._end - self._first), self._images / self._steps
        epoch = trainer.current_epoch + 1
        print(f"epoch {epoch}: {rate:.1f} images/s, steps alone {own:.1f}, ratio {rate / own:.2f}", flush=True)


def fit(work: Path, photos: list[Path], count: int) -> None:
    """Fit a small network to copies of the photos."""
    for number in range(count):
        target = work / f"photos/{number % CLASSES}/{number:04d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        content = photos[number % len(photos)].read_bytes()
        comment = b"\xff\xfe\0\6" + number.to_bytes(4, "big")  # so that no two files are copies
        target.write_bytes(content[:2] + comment + content[2:])
    run(
        [
            "fit",
            str(work / "photos"),
            "--model.model_name=configs/tiny-resnet",
            "--model.pretrained=false",
            "--data.image_size=64",
            "--data.num_workers=1",
            f"--data.cache_dir={work}/cache",
            f"--trainer.max_epochs={EPOCHS}",
            f"--trainer.callbacks={{class_path: {Clock.__module__}.Clock}}".replace("__main__", __spec__.name),
            f"--experiment.output_dir={work}/runs",
        ]
    )


def main() -> None:
    """Print the figures."""
    logging.getLogger("imgcls").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos = write_photos(work)
        for path in photos:
            print_costs(path)
        if len(sys.argv) > 1:
            fit(work, photos, int(sys.argv[1]))


if __name__ == "__main__":
    main()
