"""Models, data, callbacks and loggers that a user may bring to a fit, written as Lightning's documentation has it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader, IterableDataset

from imgcls import ImageClassifier, ImageDataModule
from tests.helpers.own import Squares


class ManySquares(Squares):
    """Squares with several labels each."""

    def __init__(self, count: int = 30) -> None:
        super().__init__(count)
        labels = [("dark" if n % 2 else "light", *(("third",) if n % 3 == 0 else ())) for n in range(count)]
        self.samples["label"] = labels


class Logging(ImageClassifier):
    """Logs values in its steps, and one at the end of the training epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        found = super().training_step(batch, batch_idx)
        assert found is not None
        self.log("train_mine", found["loss"], on_step=False, on_epoch=True)
        return found

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        found = super().validation_step(batch, batch_idx)
        assert found is not None
        self.log("validation_mine", -found["loss"])
        return found

    def on_train_epoch_end(self) -> None:
        self.log("late_mine", float(self.current_epoch))


class LoggingCallback(Callback):
    """Logs a value that is best in the first epoch."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.log("callback_mine", 1 / (1 + trainer.current_epoch))  # type: ignore[attr-defined]


class Unplain(Callback):
    """Has a state that no checkpoint may hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"since": datetime(2026, 1, 1)}


class OwnOptimizer(ImageClassifier):
    """Has an optimizer of its own, the first that Lightning's documentation shows."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Scheduled(ImageClassifier):
    """Has an optimizer and a schedule that monitors a value."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "validation_loss"}}


class NoOptimizer(ImageClassifier):
    """Has no optimizer."""

    def configure_optimizers(self) -> None:
        pass


class BareLoss(ImageClassifier):
    """Returns the loss alone."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.training_loss(self(batch["image"]), batch["label"])


class TensorValidation(ImageClassifier):
    """Returns the validation loss alone."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        logits, label = self(batch["image"]), batch["label"]
        return self.criterion(logits, label.float() if self.multilabel else label)


class SilentValidation(ImageClassifier):
    """Logs a value in validation, and returns nothing."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val_mine", self(batch["image"]).mean(), prog_bar=True)


class Manual(ImageClassifier):
    """Has a training loop of its own: manual optimization."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        for _ in range(2):
            optimizer.zero_grad()
            self.manual_backward(self.training_loss(self(batch["image"]), batch["label"]))
            optimizer.step()


class Hooks(ImageClassifier):
    """Defines hooks without ``super()``, as Lightning's base class allows."""

    calls: ClassVar[set[str]] = set()

    def on_fit_start(self) -> None:
        self.calls.add("on_fit_start")

    def on_train_start(self) -> None:
        self.calls.add("on_train_start")

    def on_train_epoch_start(self) -> None:
        self.calls.add("on_train_epoch_start")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.calls.add("on_train_batch_start")

    def on_validation_epoch_end(self) -> None:
        self.calls.add("on_validation_epoch_end")

    def on_fit_end(self) -> None:
        self.calls.add("on_fit_end")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = 1

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert checkpoint["mine"] == 1


class _Samples(IterableDataset[dict[str, Any]]):
    """Samples one by one; it has no length."""

    def __init__(self, data: DataLoader[Any]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.data:
            for image, label, path in zip(batch["image"], batch["label"], batch["path"], strict=True):
                yield {"image": image, "label": label, "path": path}


class Endless(ImageDataModule):
    """Has loaders without a length, with torch's own way to make batches."""

    def train_dataloader(self) -> Any:
        return DataLoader(_Samples(super().train_dataloader()), batch_size=8)

    def val_dataloader(self) -> Any:
        return DataLoader(_Samples(super().val_dataloader()), batch_size=8)


class Pairs(ImageDataModule):
    """Has loaders of pairs of image and label."""

    def train_dataloader(self) -> Any:
        return _of_pairs(super().train_dataloader())

    def val_dataloader(self) -> Any:
        return _of_pairs(super().val_dataloader())


def _of_pairs(data: DataLoader[Any]) -> DataLoader[Any]:
    pairs: Any = [(one["image"], one["label"]) for one in _Samples(data)]
    return DataLoader(pairs, batch_size=8)


class OnPairs(ImageClassifier):
    """Takes pairs of image and label."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, label = batch
        return self.training_loss(self(images), label)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        images, label = batch
        logits = self(images)
        return {"loss": self.criterion(logits, label.float() if self.multilabel else label), "logits": logits} | {
            "label": label
        }


class MemoryLogger(Logger):
    """Keeps what is logged in memory."""

    logged: ClassVar[list[dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "memory"

    @property
    def version(self) -> str:
        return "0"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.append(metrics)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass
