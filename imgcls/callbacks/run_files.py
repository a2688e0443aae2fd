"""RunFiles: write config.yaml, splits.csv and data.json into the run folder."""

import json
import logging
from importlib.resources import files
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from imgcls.checkpoints.run_folder import EVALUATED, REPORT, RESULTS, SPLITS, THUMBNAILS, predictions_file, results_file
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.splitting.split_report import file_report, split_table, summary, warn_missing_classes
from imgcls.runtime.atomic_files import write_text
from imgcls.runtime.distributed import gather
from imgcls.runtime.tables import write_table

log = logging.getLogger(__name__)

_SCHEMA = "schema.json"


class RunFiles(Callback):
    """Write config.yaml with its schema, splits.csv and data.json before the first step; update data.json after epochs.

    Args:
        folder: The run folder.
        config: The resolved configuration as YAML; None keeps the existing config.yaml.
    """

    def __init__(self, folder: Path, config: str | None) -> None:
        self.folder = folder
        self.config = config

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the files; remove the results of an earlier end of a resumed run."""
        if not trainer.is_global_zero:
            return
        evaluations = [name(split) for split in EVALUATED for name in (results_file, predictions_file)]
        for name in (REPORT, RESULTS, THUMBNAILS, *evaluations):
            (self.folder / name).unlink(missing_ok=True)
        if self.config is not None:
            self.write_config(self.config)
            schema = files("imgcls").joinpath("cli", _SCHEMA).read_text(encoding="utf-8")
            write_text(self.folder / _SCHEMA, schema)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule):
            log.info("%s", summary(data.splitter))
            for name in ("train", "validation", "test"):
                warn_missing_classes(data.splitter, name)
            write_table(self.folder / SPLITS, split_table(data.splitter))
            self._write_account(data)

    def write_config(self, config: str) -> None:
        """Write config.yaml, of which this process must be the only writer."""
        write_text(self.folder / "config.yaml", f"# yaml-language-server: $schema={_SCHEMA}\n{config}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the images that could not be read."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageDataModule) or data.bad_images.policy != "skip":
            return
        bad = data.bad_images
        try:
            bad.join(gather(bad))
        finally:
            if trainer.is_global_zero and bad.found:
                self._write_account(data)

    on_validation_epoch_end = on_test_epoch_end = on_train_epoch_end

    def _write_account(self, data: ImageDataModule) -> None:
        write_text(self.folder / "data.json", json.dumps(file_report(data.splitter), indent=2))
