"""Images per second of ``imgcls.load(…).predict`` and of ``imgcls predict``, in turns.

``python -m tests.benchmarks.python_api [--model FOLDER]``: 1,000 photos of 500 x 375 pixels, a random network of the
tiny configuration at 224 pixels, or that of the folder. Both begin with the checkpoint's file, after imports, and end
with the table: the command writes a CSV, Python returns a DataFrame. Each measurement has a process of its own, since
both change how the process allocates memory. Where others use the machine, too, processor time tells more than the
clock.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import imgcls
from tests.benchmarks.beside import write_photos

PHOTOS, ROUNDS = 1000, 5
TINY = Path(__file__).parents[2] / "configs/tiny-resnet"
START = """
import gc, os, sys, time, imgcls.inference.load, imgcls.cli.run_command
from imgcls.cli.main import main
_, run, images = sys.argv
start, before = time.perf_counter(), sum(os.times()[:4])
"""
COMMAND = "main(['predict', f'--ckpt_path={run}/checkpoints/best.ckpt', f'--images={images}', '--overwrite'])"
PYTHON = "imgcls.load(run).predict(images)"
ONE = """
one = imgcls.load(run)
for _ in range(6):
    start = time.perf_counter()
    one.predict(images)
"""
END = """
clock = time.perf_counter() - start
gc.collect()  # ends loader workers, whose time is counted then
print(clock, sum(os.times()[:4]) - before)
"""


def seconds(work: str, run: Path, images: Path) -> tuple[float, float]:
    """Return the time and the processor time that work takes in a process of its own."""
    code = "\n".join([START, work, END])
    done = subprocess.run([sys.executable, "-c", code, run, images], capture_output=True, text=True, check=True)
    clock, processor = map(float, done.stdout.split()[-2:])
    return clock, processor


def trained(photos: Path, model: str, out: Path) -> Path:
    """Return the run folder of a short fit."""
    resize = {"class_path": "albumentations.Resize", "init_args": {"height": 224, "width": 224}}
    lists = {"train": [resize], "eval": [resize]}
    data = {"dataset_classes": {"train": str(photos)}, "augmentations": lists}
    trainer = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 2}
    network = {"model_name": model, "pretrained": False}
    folder = imgcls.fit(data=data, model=network, trainer=trainer, experiment={"output_dir": str(out)}).run_folder
    assert folder is not None
    return folder


def measure() -> None:
    """Measure both in turns, and print the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder, "photos"), PHOTOS)
        run = trained(photos, options.model, Path(folder, "runs"))
        pairs = [(seconds(COMMAND, run, photos), seconds(PYTHON, run, photos)) for _ in range(options.rounds)]
        one, _ = seconds(ONE, run, next(photos.rglob("*.jpg")))
    for number, what in enumerate(("clock", "processor time")):
        theirs, ours = (median(times[number] for times in column) for column in zip(*pairs, strict=True))
        ratio = median(command[number] / python[number] for command, python in pairs)
        print(f"{what}: command {PHOTOS / theirs:.0f} images/s, Python {PHOTOS / ours:.0f}, ratio {ratio:.2f}")
    print(f"one photo: {1000 * one:.1f} ms")


if __name__ == "__main__":
    measure()
