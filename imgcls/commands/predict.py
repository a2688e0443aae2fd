"""The command predict: write a CSV with a prediction for each image."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from imgcls.callbacks.prediction_file import PredictionFile, first_rows
from imgcls.callbacks.prediction_writer import PredictionsWriter
from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Parts, print_once
from imgcls.commands.evaluate import Evaluation
from imgcls.commands.resume import Start
from imgcls.commands.trainer import is_first_process, log_device
from imgcls.datasets.dataset import PathListDataset
from imgcls.datasets.image_paths import find_images
from imgcls.datasets.labels import SEPARATOR
from imgcls.errors import ConfigError
from imgcls.runtime.output_file import check_output, lock_output, refuse_existing, release_output
from imgcls.runtime.signals import postponed
from imgcls.runtime.tables import print_table, shown

log = logging.getLogger(__name__)

_FEW = 10  # images whose predictions are printed, too


class Prediction(Evaluation):
    """Write a prediction for each image."""

    def __init__(self, parts: Parts, start: Start, recorded: Recorded) -> None:
        self._file = _output_of(parts.section, start)
        with ExitStack() as held:
            if is_first_process():
                held.callback(release_output, lock_output(self._file))
            if not parts.section["overwrite"]:
                refuse_existing(self._file)  # the file is locked: no other process is about to write it
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
        file = writer.file
        if self.trainer.is_global_zero and file.rows <= _FEW:
            _print_rows(file)
        if file.errors:
            images = f"{file.rows} image{'' if file.rows == 1 else 's'}"
            first = "; ".join(f"{shown(path)}: {shown(reason)}" for path, reason in file.first_errors)
            which = f": {first}" if len(file.first_errors) == file.errors else f"; see column 'error' of {file.path}"
            log.info("%d of %s could not be predicted%s", file.errors, images, which)
        print_once(file.path)


def _print_rows(file: PredictionFile) -> None:
    """Print the predictions of a few images."""
    [heading, *rows] = first_rows(file.path, _FEW)
    cells = [[path, name, _rounded(prob), row[-1]] for path, name, prob, *row in rows]
    print_table([row if file.errors else row[:3] for row in [[*heading[:3], heading[-1]], *cells]])


def _rounded(probabilities: str) -> str:
    """Round the probabilities of a cell, of which multi-label data may have several, or none."""
    return SEPARATOR.join(f"{float(value):.4f}" for value in probabilities.split(SEPARATOR) if value)


def _output_of(section: Any, start: Start) -> Path:
    """Return the file to write the predictions to."""
    folder = run_folder_of(start.path)
    given = section["output"] or (folder or Path()) / "predictions.csv"
    check_output(given)
    return Path(given).expanduser()
