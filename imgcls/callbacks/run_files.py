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
            table = data.split_table()
            table.to_csv(self.folder / "splits.csv", index=False, errors="surrogateescape")
            text = json.dumps({"used": len(table), "unused": data.ignored_files()}, indent=2)
            (self.folder / "data.json").write_text(text, encoding="utf-8")
