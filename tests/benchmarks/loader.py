"""Images per second from files to batches, beside bare loops, in turns: ``python -m tests.benchmarks.loader [FOLDER]``.

FOLDER holds a folder of JPEG files a class; without it, tiles of 500 x 375 pixels are cut from scikit-learn's two
sample photos. Everything crops by RandomResizedCrop(224) and flips; imgcls also collates, into batches of 64. What runs
on one core is pinned to it, with its worker. Where others use the machine, too, processor time tells more than the
clock.
"""

import logging
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from multiprocessing import Pipe, Process, active_children
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import albumentations as A
import cv2
import torch
import torchvision.transforms as T
from albumentations.pytorch import ToTensorV2
from PIL import Image
from sklearn.datasets import load_sample_images

import imgcls
from imgcls.config.class_path import Spec
from imgcls.images import Pixels, load_image

BATCH, FILES, ROUNDS = 64, 1024, 5  # as many batches for each of two workers
CACHE_EPOCHS = 5  # in one measurement from the cache, to take about as long as one that decodes
LIST: list[Spec] = [
    {"class_path": "RandomResizedCrop", "init_args": {"size": [224, 224]}},
    {"class_path": "HorizontalFlip"},
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Measure = Callable[[], int]  # does the work once; number of images


def write_tiles(folder: Path) -> Path:
    """Cut tiles from the sample photos."""
    rng = random.Random(0)
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(FILES):
        photo = photos[number % 2]
        width = round(photo.width * rng.uniform(0.4, 0.85))
        height = width * 3 // 4
        x, y = rng.randrange(photo.width - width + 1), rng.randrange(photo.height - height + 1)
        tile = photo.crop((x, y, x + width, y + height)).resize((500, 375), Image.Resampling.LANCZOS)
        path = folder / f"class{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile.save(path, quality=95)
    return folder


# -- bare loops


def done(work: Callable[[Any], object], items: Sequence[Any], repeats: int = 1) -> int:
    """Work through the items."""
    for _ in range(repeats):
        for item in items:
            work(item)
    return repeats * len(items)


def peers(file: str) -> object:
    """What most trainers do: Pillow, torchvision, floats."""
    return _PEERS(Image.open(file).convert("RGB"))


def opencv(file: str) -> object:
    """OpenCV and Albumentations, uint8."""
    return _UINT8(image=cv2.imread(file, cv2.IMREAD_COLOR_RGB))["image"]


def opencv_decoding(file: str) -> object:
    """OpenCV, decoding alone."""
    return cv2.imread(file, cv2.IMREAD_COLOR_RGB)


def crop_and_flip(image: Pixels, rng: random.Random = random.Random(0)) -> object:  # noqa: B008 - one stream
    """The least that can be done with an image that lies in memory."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(height, width)
    x, y = rng.randint(0, width - w), rng.randint(0, height - h)
    out = cv2.resize(image[y : y + h, x : x + w], (224, 224))
    return out[:, ::-1] if rng.random() < 0.5 else out


_PEERS = T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])
_UINT8 = A.Compose([A.RandomResizedCrop(size=(224, 224)), A.HorizontalFlip(), ToTensorV2()])


def serve(work: Callable[[Any], object], items: Sequence[Any], pipe: Connection) -> None:
    """Work through the items whenever told to."""
    cv2.setNumThreads(0)
    while pipe.recv():
        for item in items:
            work(item)
        pipe.send(True)


def two_processes(work: Callable[[Any], object], files: list[str]) -> Measure:
    """Two processes that each do half of the files at the same time."""
    pipes = []
    for number in range(2):
        ours, theirs = Pipe()
        Process(target=serve, args=(work, files[number::2], theirs), daemon=True).start()
        pipes.append(ours)

    def measure() -> int:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()
        return len(files)

    return measure


# -- imgcls


@contextmanager
def one_core() -> Iterator[None]:
    """Pin this process, and those that it starts, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def count(batches: Iterable[dict[str, Any]]) -> int:
    """Images of some batches."""
    return sum(len(batch["label"]) for batch in batches)


def ours(folder: Path, workers: int, epochs: int = 1, **cache: Any) -> Measure:
    """The training loader of imgcls, its workers started and its cache built."""
    lists = imgcls.Augmentations(train=LIST, eval=LIST)
    classes = imgcls.DatasetClasses(train=str(folder), validation=str(folder))
    data = imgcls.ImageDataModule(classes, lists, BATCH, workers, on_leak="warn", **cache)
    data.setup("fit")
    loader: Any = data.train_dataloader()
    count(loader)

    return lambda: sum(count(loader) for _ in range(epochs))


def rows(folder: Path, cache: Path) -> dict[str, Measure]:
    """Everything that is measured: on one core first, then on all."""
    files = [str(path) for path in islice(sorted(folder.rglob("*.jpg")), FILES)]
    small = [cv2.resize(load_image(file), (341, 256), interpolation=cv2.INTER_AREA) for file in files]
    on_disk: dict[str, Any] = {"create_dataset": True, "cache_dir": str(cache), "epochs": CACHE_EPOCHS}
    found: dict[str, Measure] = {
        "peers: Pillow + torchvision, float": lambda: done(peers, files),
        "OpenCV + Albumentations, uint8": lambda: done(opencv, files),
        "floor: uint8 cache of 256 + bare crop and flip": lambda: done(crop_and_flip, small, CACHE_EPOCHS),
    }
    with one_core():
        for workers in (0, 1):
            name = f"imgcls, one core, {workers} workers"
            found[f"{name}: decoding"] = ours(folder, workers)
            found[f"{name}: cache of 256"] = ours(folder, workers, cache_size=256, **on_disk)
            found[f"{name}: cache"] = ours(folder, workers, **on_disk)
    found["two processes: OpenCV, decoding alone"] = two_processes(opencv_decoding, files)
    found["two processes: OpenCV + Albumentations, uint8"] = two_processes(opencv, files)
    found["imgcls, 2 workers: decoding"] = ours(folder, 2)
    found["imgcls, 2 workers: cache of 256"] = ours(folder, 2, cache_size=256, **on_disk)
    found["imgcls, 2 workers: cache"] = ours(folder, 2, **on_disk)
    return found


def processor_seconds() -> float:
    """Processor time that this process and its children have used."""
    used = 0.0
    for child in active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return time.process_time() + used


def rate(measure: Measure) -> tuple[float, float]:
    """Images per second of the clock, and of processor time."""
    clock, processor = time.perf_counter(), processor_seconds()
    images = measure()
    return images / (time.perf_counter() - clock), images / (processor_seconds() - processor)


def measured(found: dict[str, Measure]) -> dict[str, list[tuple[float, float]]]:
    """The rates of each row, in turns."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for _ in range(ROUNDS):
        for name, measure in found.items():
            with nullcontext() if "2 workers" in name or name.startswith("two") else one_core():
                rates[name].append(rate(measure))
    return rates


RATIOS = [
    ("imgcls, one core, 0 workers: decoding", "OpenCV + Albumentations, uint8"),
    ("imgcls, one core, 1 workers: decoding", "OpenCV + Albumentations, uint8"),
    ("imgcls, one core, 0 workers: decoding", "peers: Pillow + torchvision, float"),
    ("imgcls, one core, 1 workers: decoding", "peers: Pillow + torchvision, float"),
    ("imgcls, one core, 0 workers: cache of 256", "floor: uint8 cache of 256 + bare crop and flip"),
    ("imgcls, one core, 1 workers: cache of 256", "floor: uint8 cache of 256 + bare crop and flip"),
    ("imgcls, 2 workers: decoding", "two processes: OpenCV, decoding alone"),
    ("imgcls, 2 workers: decoding", "two processes: OpenCV + Albumentations, uint8"),
]


def main() -> None:
    """Print the rates and their ratios: medians of the rounds."""
    logging.getLogger("imgcls").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else write_tiles(Path(work, "tiles"))
        rates = measured(rows(folder, Path(work, "cache")))
    print(f"{'images per second of':48s}    clock  processor")
    for name, values in rates.items():
        print(f"{name:48s} {median(clock for clock, _ in values):8.0f} {median(busy for _, busy in values):10.0f}")
    for one, other in RATIOS:
        ratios = [(a[0] / b[0], a[1] / b[1]) for a, b in zip(rates[one], rates[other], strict=True)]
        print(
            f"{one} / {other}: {median(r for r, _ in ratios):.2f}, of processor time {median(r for _, r in ratios):.2f}"
        )


if __name__ == "__main__":
    main()
