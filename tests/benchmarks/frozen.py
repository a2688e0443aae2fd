"""Seconds of 20 epochs with a frozen encoder beside one plain pass: ELPV, EfficientNet-Lite0, features of one view.

Seconds of the clock, and of the processors (the workers' with them), which other work on the machine changes less.
``python -m tests.benchmarks.frozen [--images N]`` takes the first N images of each class; all by default.
"""

import argparse
import contextlib
import io
import resource
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

import imgcls
from imgcls.cli.main import main as imgcls_main
from imgcls.commands.trainer import best_precision
from imgcls.data.transforms.model_transforms import eval_specs, less_cropped
from imgcls.data.transforms.presets import DEFAULT_PRESET, preset_specs
from tests.helpers.real_data import write_efficientnet_lite0, write_elpv

EPOCHS = 20


Seconds = tuple[float, float]  # by the clock, and of the processors


def now() -> Seconds:
    """The time, and what this process and its workers that have ended have worked until now."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + ended.ru_utime + ended.ru_stime


def since(start: Seconds) -> Seconds:
    """Seconds since a ``now``."""
    end = now()
    return end[0] - start[0], end[1] - start[1]


class Clock(pl.Callback):
    """Times a fit from its first hook to its last: features are computed, and checkpoints written, in between."""

    seconds: Seconds = (0.0, 0.0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._start = now()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            Clock.seconds = since(self._start)


def plain_pass(model: Path, photos: Path, precision: str) -> Seconds:
    """Seconds in which the images of train and validation are read and go through the network once."""
    network = imgcls.ImageClassifier(str(model))
    network.build(["defective", "functional"])
    network.eval()
    expected = network.preprocessing
    lists = imgcls.Augmentations(preset_specs(DEFAULT_PRESET, expected), eval_specs(less_cropped(expected)))
    data = imgcls.ImageDataModule(imgcls.DatasetClasses(train=str(photos)), lists)
    data.setup("fit")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    start = now()
    loaders: list[Any] = [data.train_dataloader(), data.val_dataloader()]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        for batch in chain(*loaders):
            network(batch["image"].to(device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    del loaders  # ends the workers
    return since(start)


def fit(model: Path, photos: Path, out: Path) -> tuple[Seconds, Seconds]:
    """Seconds of the fit, and of the whole command with the evaluation of the best epoch; without the imports."""
    line = [
        f"--data.dataset_classes.train={photos}",
        f"--model.model_name={model}",
        "--model.freeze_encoder=true",
        "--model.feature_views=1",
        f"--trainer.max_epochs={EPOCHS}",
        "--trainer.callbacks+=tests.benchmarks.frozen.Clock",
        f"--trainer.callbacks+={{class_path: EarlyStopping, init_args: {{monitor: train_loss, patience: {EPOCHS}}}}}",
        f"--experiment.output_dir={out}",
    ]
    start = now()
    with contextlib.redirect_stdout(io.StringIO()):
        imgcls_main(["fit", *line])
    return _seconds(), since(start)


def _seconds() -> Seconds:
    """What the class noted that the command made: run as a program, this file is a module of another name."""
    import tests.benchmarks.frozen as imported

    return imported.Clock.seconds


def some(photos: Path, images: int | None) -> Path:
    """Remove all images but the first of each class."""
    for folder in photos.iterdir():
        for path in sorted(folder.iterdir())[images:]:
            path.unlink()
    return photos


def main() -> None:
    """Print the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int)
    images = parser.parse_args().images
    precision = best_precision(torch.cuda.is_available())
    with tempfile.TemporaryDirectory() as folder:
        photos, model = Path(folder, "elpv"), write_efficientnet_lite0(Path(folder, "model"))
        write_elpv(photos)
        photos = photos / "train" if images is None else some(photos / "train", images)
        before = plain_pass(model, photos, precision)
        fitted, whole = fit(model, photos, Path(folder, "runs"))
        after = plain_pass(model, photos, precision)
    print(f"{precision}; seconds by the clock, and of the processors")
    for number, kind in enumerate(("clock", "processors")):
        once = (before[number] + after[number]) / 2
        print(f"{kind}: one plain pass over train and validation {before[number]:.1f} and {after[number]:.1f} s")
        print(f"{kind}: fit of {EPOCHS} epochs on one view {fitted[number]:.1f} s, ratio {fitted[number] / once:.2f}")
        print(f"{kind}: with the evaluation of the best {whole[number]:.1f} s, ratio {whole[number] / once:.2f}")


if __name__ == "__main__":
    main()
