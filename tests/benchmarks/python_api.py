"""Images per second of ``imgcls.load(…).predict`` and of ``imgcls predict``, in turns.

``python -m tests.benchmarks.python_api [--model FOLDER]``: 1,000 photos of 500 x 375 pixels, a random network of the
tiny configuration at 224 pixels, or that of the folder. Both begin with the checkpoint's file, after imports, and end
with the table: the command in this process writes a CSV, Python returns a DataFrame.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import imgcls
from imgcls.cli.main import main
from tests.benchmarks.beside import write_photos

PHOTOS, ROUNDS = 1000, 5
TINY = Path(__file__).parents[2] / "configs/tiny-resnet"


def seconds(work: Callable[[], object]) -> float:
    """Return the time that work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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


def run() -> None:
    """Measure both in turns, and print the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder, "photos"), PHOTOS)
        best = trained(photos, options.model, Path(folder, "runs"))
        line = ["predict", f"--ckpt_path={best}/checkpoints/best.ckpt", f"--images={photos}"]
        line += [f"--output={folder}/p.csv", "--overwrite"]
        command: list[float] = []
        python: list[float] = []
        for _ in range(options.rounds):
            command.append(PHOTOS / seconds(lambda: main(line)))
            python.append(PHOTOS / seconds(lambda: imgcls.load(best).predict(photos)))
        one = imgcls.load(best)
        photo = next(photos.rglob("*.jpg"))
        one.predict(photo)
        single = median(seconds(lambda: one.predict(photo)) for _ in range(20))
    ratios = [ours / theirs for ours, theirs in zip(python, command, strict=True)]
    print(f"command {median(command):.0f} images/s, Python {median(python):.0f}, ratio {median(ratios):.2f}")
    print(f"one photo: {1000 * single:.1f} ms")


if __name__ == "__main__":
    run()
