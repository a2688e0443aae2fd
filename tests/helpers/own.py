"""What a user may bring: a preprocessing function, a dataset class and a callback."""

import os

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from PIL import UnidentifiedImageError
from torch.utils.data import get_worker_info
from torchmetrics import MeanMetric

from imgcls import ImageClassifier, ImageDataset, LossConfig
from imgcls.errors import ImageError
from imgcls.images import Pixels


def darker(image: Pixels, amount: int = 20) -> dict[str, Pixels]:
    """A preprocessing function with the interface of Albumentations."""
    return {"image": np.clip(image.astype(int) - amount, 0, 255).astype(np.uint8)}


class Squares(ImageDataset):
    """Grey squares whose brightness is their class, each of its own shade; no files."""

    def __init__(self, count: int = 30, bad: int | None = None) -> None:
        self.bad = bad
        self.samples = pd.DataFrame(
            {
                "path": [f"square/{n:03d}" for n in range(count)],
                "label": ["dark" if n % 2 else "light" for n in range(count)],
            }
        )

    def read(self, index: int) -> Pixels:
        if index == self.bad:
            raise ImageError(f"{self.samples['path'].iat[index]}: is broken")
        return np.full((32, 32, 3), (40 if index % 2 else 200) + index // 2, np.uint8)


class Logged(Squares):
    """Writes down each sample that it reads, in the file that READ_LOG names."""

    def read(self, index: int) -> Pixels:
        with open(os.environ["READ_LOG"], "a", encoding="utf-8") as file:
            file.write(f"{os.environ.get('LOCAL_RANK', 0)} {index}\n")
        return super().read(index)


class Torn(Squares):
    """A class that lets through what its reader raises of a damaged image."""

    def read(self, index: int) -> Pixels:
        if index == self.bad:
            raise UnidentifiedImageError(f"cannot identify image file '{self.sample_paths[index]}'")
        return super().read(index)


class Floats(Squares):
    """Gives the loader floats from 0 to 1."""

    def read(self, index: int) -> Pixels:
        pixels = super().read(index)
        return pixels if get_worker_info() is None else pixels / 255  # type: ignore[return-value]


class Spread(MeanMetric):
    """A metric that does not say which way is better."""

    def __init__(self, num_classes: int, task: str = "multiclass") -> None:
        super().__init__()

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:  # type: ignore[override]
        super().update(preds.std(dim=1))


class Fixed(ImageClassifier):
    """A model class with arguments of its own alone."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(os.environ["TINY_MODEL"], pretrained=False, loss_config=LossConfig(label_smoothing=smoothing))


class CtrlC(Callback):
    """Ends a run as Ctrl-C does, before its first step."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise KeyboardInterrupt
