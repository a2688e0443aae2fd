"""RunFiles: what a run folder says of its run before the first step."""

import json
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from imgcls.datamodule import ImageDataModule


class RunFiles(Callback):
    """Writes config.yaml, splits.csv and data.json into the run folder.

    Args:
        folder: The run folder.
        config: The resolved configuration as YAML.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.config = config

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the files."""
        if not trainer.is_global_zero:
            return
        (self.folder / "config.yaml").write_text(self.config, encoding="utf-8")
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule):
            data.partition.table().to_csv(self.folder / "splits.csv", index=False, errors="surrogateescape")
            self._write_account(data)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the images that turned out to be bad when they were read."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, ImageDataModule) and data.bad_images.found:
            self._write_account(data)

    def _write_account(self, data: ImageDataModule) -> None:
        text = json.dumps(data.partition.account(), indent=2)
        (self.folder / "data.json").write_text(text, encoding="utf-8")
