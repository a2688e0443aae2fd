"""The command predict: write a CSV with a prediction for each image."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from imgcls.callbacks.prediction_writer import PredictionsWriter
from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Parts, print_once
from imgcls.commands.evaluate import Evaluation
from imgcls.commands.resume import Start
from imgcls.commands.trainer import is_first_process, log_device
from imgcls.datasets.dataset import PathListDataset
from imgcls.datasets.image_paths import find_images
from imgcls.errors import ConfigError
from imgcls.runtime.output_file import check_output, lock_output, release_output
from imgcls.runtime.signals import postponed

log = logging.getLogger(__name__)


class Prediction(Evaluation):
    """Write a prediction for each image."""

    def __init__(self, parts: Parts, start: Start, recorded: Recorded) -> None:
        self._file = _output_of(parts.section, start)
        with ExitStack() as held:
            if is_first_process():
                held.callback(release_output, lock_output(self._file))
            _refuse_existing(self._file, parts.section)  # the file is locked: no other process is about to write it
            super().__init__(parts, start, recorded)
            self._held = held.pop_all()

    def _take_images(self) -> None:
        if self.parts.section["images"]:
            images = PathListDataset(find_images(self.parts.section["images"]))
            known = [data.max_pixels for data in self.data.datasets.values() if data is not None]
            images.max_pixels = max([images.max_pixels, *known])  # as the run was configured
            self.data.predict_on(images)

    def run(self) -> None:
        """Write the CSV, and print its path."""
        with self._held:
            self._run()

    def _run(self) -> None:
        if self.trainer.num_nodes > 1:
            raise ConfigError(f"predict runs on one machine: trainer.num_nodes must be 1, got {self.trainer.num_nodes}")
        log_device(self.trainer)
        writer = PredictionsWriter(self._file, self.model.class_names, self.model.thresholds)
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        with postponed(waits=True):
            self.trainer.predict(
                self.model,
                datamodule=self.data,
                ckpt_path=self.start.path,
                return_predictions=False,
                weights_only=True,
            )
        if writer.errors:
            images = f"{writer.rows} image{'' if writer.rows == 1 else 's'}"
            log.info("%d of %s could not be predicted; see column 'error' of %s", writer.errors, images, writer.path)
        print_once(writer.path)


def _output_of(section: Any, start: Start) -> Path:
    """Return the file to write the predictions to."""
    folder = run_folder_of(start.path)
    given = section["output"] or (folder or Path()) / "predictions.csv"
    check_output(given)
    return Path(given).expanduser()


def _refuse_existing(path: Path, section: Any) -> None:
    if path.exists() and not section["overwrite"]:
        raise ConfigError(f"{path} exists; add --overwrite to replace it, or --output FILE to write another")
