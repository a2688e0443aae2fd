"""Milliseconds that a training step costs beyond the bare loop: Trainer, callbacks of ``fit``, metrics; budget 1 ms.

Both loops take the same batches (256 x 3 x 8 x 8, in memory), the same network, loss, AdamW and schedule, on one
thread; the time is that thread's on the processor between two fetches of a batch, the median of an epoch, the best of
interleaved rounds.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import AutoConfig

import imgcls
from imgcls.callbacks.data_wait_monitor import DataWaitMonitor
from imgcls.callbacks.terminate_on_nan import TerminateOnNaN
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.commands.default_callbacks import early_stopping, moving_average, run_callbacks, shown_callbacks
from imgcls.commands.monitored_values import monitored_values
from imgcls.commands.trainer import build_trainer
from imgcls.data.loading.batches import identity
from imgcls.models.training.optimizer import make_optimizer
from imgcls.models.training.scheduler import make_scheduler
from imgcls.runtime.warning_filters import quieten
from imgcls.types import Batch

STEPS, ROUNDS, WARM = 180, 4, 10
CLASSES = list("abcd")


class Batches(Dataset[Batch]):
    """One batch, again and again; notes when it is fetched."""

    def __init__(self) -> None:
        image = torch.randint(0, 256, (256, 3, 8, 8), dtype=torch.uint8)
        self.batch = Batch(image=image, label=torch.randint(0, len(CLASSES), (256,)), path=[""] * 256)
        self.times: list[float] = []

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> Batch:
        self.times.append(time.thread_time())
        return self.batch

    def gap(self) -> float:
        """Milliseconds between two fetches."""
        gaps = [later - earlier for earlier, later in zip(self.times[WARM:], self.times[WARM + 1 :], strict=False)]
        return 1000 * median(gaps)


class Data(imgcls.ImageDataModule):
    """ImageDataModule with such batches."""

    def __init__(self, batches: Batches) -> None:
        super().__init__(num_workers=0)
        self.batches = batches
        self.class_names = CLASSES

    def setup(self, stage: str) -> None:
        """Nothing to look at."""

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.batches, batch_size=None, collate_fn=identity)


def small_model(folder: Path) -> imgcls.ImageClassifier:
    """A network whose step takes a millisecond."""
    config = AutoConfig.for_model("resnet", hidden_sizes=[8], depths=[1], embedding_size=8, image_size=8)
    config.architectures = ["ResNetForImageClassification"]
    config.save_pretrained(folder)
    torch.manual_seed(0)
    model = imgcls.ImageClassifier(str(folder), pretrained=False)
    model.build(CLASSES)
    return model


def bare_gap(folder: Path) -> float:
    """Milliseconds of a step of the bare loop."""
    model, batches = small_model(folder), Batches()
    optimizer = make_optimizer(model.optimizer_config, model.rates, [list(model.parameters())], set())
    scheduler = make_scheduler(model.scheduler_config, optimizer, STEPS, STEPS)
    criterion = nn.CrossEntropyLoss()
    loader: Iterator[Batch] = iter(DataLoader(batches, batch_size=None, collate_fn=identity))
    for batch in loader:
        optimizer.zero_grad()
        torch.autograd.backward(criterion(model(batch["image"]), batch["label"]))
        optimizer.step()
        scheduler.step()
    return batches.gap()


def our_gap(folder: Path) -> float:
    """Milliseconds of a step of ``fit``."""
    model, batches = small_model(folder), Batches()
    options: dict[str, Any] = dict.fromkeys(
        (
            "plugins",
            "logger",
            "default_root_dir",
            "enable_progress_bar",
            "val_check_interval",
            "benchmark",
            "deterministic",
        )
    )
    options |= {"max_epochs": 1, "limit_val_batches": 0, "accelerator": "cpu", "precision": "32-true"}
    options |= {"enable_model_summary": False}
    callbacks = shown_callbacks([], options)
    callbacks += moving_average(callbacks, None)
    monitored = monitored_values(callbacks, options, model, CLASSES)
    run = folder / "run"
    (run / "version_0").mkdir(parents=True, exist_ok=True)
    callbacks += early_stopping(callbacks, monitored, 10, options)
    callbacks += run_callbacks(callbacks, monitored, run / "version_0", keep_checkpoints=False)
    callbacks += [DataWaitMonitor(cached=True), TerminateOnNaN()]
    trainer = build_trainer(options, callbacks, AtomicCheckpointIO(), run / "version_0")
    trainer.fit(model, datamodule=Data(batches))
    return batches.gap()


def main() -> None:
    """Print both times and their difference."""
    quieten()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [(bare_gap(Path(folder)), our_gap(Path(folder))) for _ in range(ROUNDS)]
    bare, ours = (min(gaps) for gaps in zip(*rounds, strict=True))
    over = sorted(theirs - own for own, theirs in rounds)
    spread = f"by round {over[0]:+.2f} .. {over[-1]:+.2f}"
    print(f"step: bare {bare:.2f} ms, imgcls {ours:.2f} ms, {ours - bare:+.2f} ms ({spread})")


if __name__ == "__main__":
    main()
