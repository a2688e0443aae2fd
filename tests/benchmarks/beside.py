"""What the training benchmarks share: photos, a clock, and the scripts of others that run beside ours."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image

_ROW = re.compile(r"^(train|infer) channels_last=\d bf16=\d compile=(\d)\s+([\d.]+) img/s", re.MULTILINE)
_EPOCHS = re.compile(r"img/s by epoch:([\d. ]+)")


THREE_EPOCHS: dict[str, Any] = {  # of training, the first of them cold
    "max_epochs": 3,
    "limit_val_batches": 0,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Clock(pl.Callback):
    """Times the epochs of training, and the passes of validation from their second batch on.

    Args:
        images: Images of an epoch of training.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.rates: list[float] = []
        self.forward = 0.0
        """Images per second of the fastest pass of validation, as step_limit.py takes the best of three."""
        self._seen = 0
        self._start = 0.0

    @property
    def warm(self) -> float:
        """Images per second of the fastest epoch but the first."""
        return max(self.rates[1:])

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = _now()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.rates.append(self.images / (_now() - self._start))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            self._seen, self._start = 0, _now()
            return
        self._seen += len(batch["label"])

    def on_validation_end(self, *_: Any) -> None:
        self.forward = max(self.forward, self._seen / (_now() - self._start))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def write_photos(folder: Path, count: int) -> Path:
    """Write smooth noise as JPEG files of 500 x 375 pixels, in four class folders."""

    def write(number: int) -> None:
        path = folder / f"class{number % 4}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=92)

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(count)))
    return folder


def script(bench: Path | None, name: str) -> Path | None:
    """Return a script of the folder of others' benchmarks; say where there is none."""
    path = bench / name if bench is not None else None
    if path is not None and path.is_file():
        return path
    print(f"{name}: not measured beside; --bench DIR names the folder that it lies in ({bench or 'none given'})")
    return None


def best_rows(path: Path, model: Path, batch: int, device: str, more: Sequence[str] = ()) -> dict[str, float]:
    """Run step_limit.py; return images per second of its best row of ``train`` and of ``infer``."""
    said = _run(path, str(model), "--device", device, "--batch", str(batch), *more)
    rows = [(kind, float(rate)) for kind, _, rate in _ROW.findall(said)]
    return {kind: max(rate for name, rate in rows if name == kind) for kind in ("train", "infer")}


def hf_rate(path: Path, photos: Path, model: Path, batch: int) -> float:
    """Run hf_trainer.py; return images per second of its fastest epoch but the first."""
    match = _EPOCHS.search(_run(path, str(photos), str(model), "--batch", str(batch)))
    if match is None:
        raise ValueError(f"{path} printed no rates")
    return max(map(float, match[1].split()[1:]))


def _run(path: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{path}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
