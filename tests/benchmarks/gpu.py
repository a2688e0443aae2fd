"""One GPU: images per second of training ResNet-50 and ViT-B/16 on JPEG tiles, beside the bare step on the same GPU.

``python -m tests.benchmarks.gpu --bench DIR [--photos DIR]``: --bench holds step_limit.py, --photos class folders of
real tiles (else smooth noise is written). The images are decoded each time, and come from the cache; the step is
compiled. The last column counts what ``torch.cuda.set_sync_debug_mode("warn")`` warns of in 20 steps; "-" where an
epoch has fewer.
"""

import argparse
import gc
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from transformers import AutoConfig

import imgcls
from imgcls.runtime.warning_filters import quieten
from tests.benchmarks.beside import THREE_EPOCHS, Clock, best_rows, script, write_photos

MODELS = {"ResNet-50": ("resnet", "ResNetForImageClassification"), "ViT-B/16": ("vit", "ViTForImageClassification")}
FIRST, STEPS = 5, 20  # of the second epoch, whose waits are counted


class SyncCount(pl.Callback):
    """Counts the warnings of CUDA's synchronisation check."""

    found: int | None = None
    """The number in all steps that are to be counted; None where the epoch ended before."""

    def __init__(self) -> None:
        self._record = warnings.catch_warnings(record=True)
        self._list: list[warnings.WarningMessage] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch != 1:
            return
        if batch_idx == FIRST:
            self._list = self._record.__enter__() or []
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        if batch_idx == FIRST + STEPS:
            self._stop()
            self.found = sum("synchronizing" in str(item.message) for item in self._list)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and self.found is None:
            self._stop()

    def _stop(self) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._record.__exit__(None, None, None)


def write_model(folder: Path, name: str) -> Path:
    """Write the config alone: both architectures are transformers' defaults."""
    model_type, architecture = MODELS[name]
    config = AutoConfig.for_model(model_type)
    config.architectures = [architecture]
    config.save_pretrained(folder)
    return folder


def our_rate(model: Path, photos: Path, batch: int, cached: bool, cache: Path) -> tuple[float, int | None]:
    """Images per second of the best warm epoch, and the number of waits in 20 steps."""
    data = imgcls.ImageDataModule(
        imgcls.DatasetClasses(train=str(photos)), batch_size=batch, create_dataset=cached, cache_dir=str(cache)
    )
    data.setup("fit")
    clock, count = Clock(len(data.split("train"))), SyncCount()
    trainer = pl.Trainer(
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        benchmark=True,  # as imgcls fit
        **THREE_EPOCHS,
        callbacks=[clock, count, imgcls.MetricsLogger(), imgcls.EMA()],
    )
    trainer.fit(imgcls.ImageClassifier(str(model), pretrained=False, compile=True), datamodule=data)
    return clock.warm, count.found


def largest(model: Path, photos: Path, batch: int, folder: Path) -> tuple[int, float, int | None]:
    """Train with the largest batch that fits, of ``batch`` and its halves; images decoded each time."""
    while True:
        try:
            return batch, *our_rate(model, photos, batch, False, folder)
        except torch.OutOfMemoryError:
            batch //= 2
        _give_back()


def bare_rate(limit: Path, model: Path, batch: int) -> float | None:
    """Images per second of the best row of step_limit.py; None where it broke off, which is said."""
    _give_back()
    try:
        return best_rows(limit, model, batch, "cuda", ["--compile"])["train"]
    except RuntimeError as error:
        print(error)
        return None


def _give_back() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, help="folder of step_limit.py")
    parser.add_argument("--photos", type=Path, help="class folders of JPEG tiles")
    parser.add_argument("--images", type=int, default=38_400, help="photos to write where none are given")
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing is measured")
        return
    quieten()
    limit = script(options.bench, "step_limit.py")
    cores = len(os.sched_getaffinity(0))
    print(f"{torch.cuda.get_device_name()}, {cores} cores, torch {torch.__version__}, bf16, compiled")
    print(f"{'model':<10} {'batch':>5} {'images':<8} {'imgcls':>8} {'bare step':>10} {'ratio':>6} {'syncs':>6}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = options.photos or write_photos(folder / "photos", options.images)
        for name in MODELS:
            model = write_model(folder / MODELS[name][0], name)
            batch, rate, syncs = largest(model, photos, options.batch, folder / "cache")
            bare = bare_rate(limit, model, batch) if limit else None
            rows = {"decoded": (rate, syncs), "cached": our_rate(model, photos, batch, True, folder / "cache")}
            for images, (ours, waits) in rows.items():
                counted = "-" if waits is None else str(waits)
                beside = f"{bare:>10.0f} {ours / bare:>6.2f}" if bare else f"{'':>10} {'':>6}"
                print(f"{name:<10} {batch:>5} {images:<8} {ours:>8.0f} {beside} {counted:>6}", flush=True)


if __name__ == "__main__":
    main()
