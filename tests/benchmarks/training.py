"""Images per second of training and prediction beside the bare loop, EfficientNet-Lite0, batch 32, in turns.

The bare loop is synthetic data, channels-last, bf16 where ``precision: null`` chooses it; imgcls reads real JPEG files.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image

import imgcls
from imgcls.network import load_network
from imgcls.trainer import best_precision
from tests.real_data import write_efficientnet_lite0

BATCH, STEPS, ROUNDS = 32, 6, 3


class Clock(pl.Callback):
    """Times the training epochs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def write_photos(folder: Path) -> Path:
    """Write smooth noise as JPEG files of 500 x 375 pixels."""
    generator = np.random.default_rng(0)
    for number in range(BATCH * STEPS):
        path = folder / f"class{number % 4}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=92)
    return folder


def bare_rate(model: Path, precision: str) -> float:
    """Images per second of the bare loop."""
    network, _ = load_network(str(model), True, list("abcd"))
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 4, (BATCH,))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = network(pixel_values=images).logits
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits.float(), labels))
        optimizer.step()
        optimizer.zero_grad()

    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return BATCH * STEPS / (time.perf_counter() - start)


def our_rate(model: Path, photos: Path, precision: str) -> float:
    """Images per second of imgcls in its second epoch."""
    data = imgcls.ImageDataModule(
        imgcls.DatasetClasses(train=str(photos), validation=str(photos)), batch_size=BATCH, num_workers=1
    )
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock, imgcls.MetricsLogger()],
    )
    trainer.fit(imgcls.ImageClassifier(str(model)), datamodule=data)
    return BATCH * STEPS / clock.seconds[-1]


def main() -> None:
    """Print both rates and their ratio."""
    precision = best_precision(on_gpu=False)
    with tempfile.TemporaryDirectory() as folder:
        model, photos = write_efficientnet_lite0(Path(folder, "model")), write_photos(Path(folder, "photos"))
        rounds = [(bare_rate(model, precision), our_rate(model, photos, precision)) for _ in range(ROUNDS)]
    bare, ours = (median(rates) for rates in zip(*rounds, strict=True))
    print(f"training, {precision}: bare loop {bare:.1f} img/s, imgcls {ours:.1f} img/s, ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()
