"""The command predict: write a table with a prediction for each image, and the features of the images."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from imgcls import __version__
from imgcls.callbacks.prediction_writer import PredictionsWriter
from imgcls.checkpoints.io import checkpoint_id
from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Parts, print_once
from imgcls.commands.evaluate import Evaluation
from imgcls.commands.evaluation_files import EVALUATION_KEYS, changed_settings
from imgcls.commands.guarantees import find_selection
from imgcls.commands.resume import Start
from imgcls.commands.trainer import is_first_process, log_device
from imgcls.datasets.dataset import PathListDataset
from imgcls.datasets.image_paths import find_images
from imgcls.datasets.labels import SEPARATOR
from imgcls.errors import ConfigError
from imgcls.models.inference import InferenceModule
from imgcls.predictions.feature_file import FeatureFile
from imgcls.predictions.predicted_texts import ABSTAIN
from imgcls.predictions.prediction_file import PredictionFile, check_format
from imgcls.predictions.prediction_rows import check_top_k
from imgcls.runtime.output_file import check_output, lock_output, refuse_existing, release_output
from imgcls.runtime.resumable_output import refuse_unfinished
from imgcls.runtime.signals import postponed
from imgcls.runtime.tables import print_table, shown

log = logging.getLogger(__name__)

_FEW = 10  # images whose predictions are printed, too
_SHOWN = 5  # most probable classes of each that are printed
_CLASSES = 10  # most frequent predictions that are counted in a line


class Prediction(Evaluation):
    """Write a prediction for each image."""

    def __init__(self, parts: Parts, start: Start, recorded: Recorded) -> None:
        self._file = _output_of(parts.section, start)
        self._embeddings = _embeddings_of(parts.section)
        files = {"--output": self._file} | ({"--embeddings": self._embeddings} if self._embeddings else {})
        with ExitStack() as held:
            for option, file in files.items():
                if is_first_process():
                    held.callback(release_output, lock_output(file, option))
                if not parts.section["overwrite"]:
                    if option == "--output" and not parts.section["resume"]:
                        refuse_unfinished(file)
                    refuse_existing(file, option)  # it is locked: no other process is about to write it
            super().__init__(parts, start, recorded)
            self._check_model()
            guarantees = {name: parts.section[name] for name in ("risk", "coverage", "calibrate_on")}
            self._selection = find_selection(start, changed_settings(parts, recorded), **guarantees)
            self._about = {
                "--ckpt_path": checkpoint_id(start.path),
                "--tta": parts.section["tta"],
                "--top_k": parts.section["top_k"],
                "--raw": parts.section["raw"],
                "--risk": parts.section["risk"],
                "--coverage": parts.section["coverage"],
                "least probabilities of a prediction and in a set": list(self._selection),
                "--embeddings": str(self._embeddings.absolute()) if self._embeddings else None,
                "imgcls": __version__,
                **recorded.changed(parts.saved, EVALUATION_KEYS),
                "trainer.precision": self.trainer.precision,
            }
            self._held = held.pop_all()

    def _take_images(self) -> None:
        if self.parts.section["images"]:
            images = PathListDataset(find_images(self.parts.section["images"]))
            known = [data.max_pixels for data in self.data.datasets.values() if data is not None]
            images.max_pixels = max([images.max_pixels, *known])  # as the run was configured
            self.data.predict_on(images)

    def _check_model(self) -> None:
        """Check that the model has as many classes, and the features, that are asked for."""
        check_top_k(self.parts.section["top_k"], len(self.model.class_names))
        kind = type(self.model)
        for name in ("forward", "predict_step") if self._embeddings else ():
            if getattr(kind, name) is not getattr(InferenceModule, name):
                raise ConfigError(
                    f"--embeddings needs {name} of imgcls.ImageClassifier, which {kind.__name__} overrides; use "
                    "imgcls.load(CHECKPOINT).embed(images)"
                )

    def run(self) -> None:
        """Write the files, and print their paths."""
        with self._held:
            self._run()

    def _run(self) -> None:
        if self.trainer.num_nodes > 1:
            raise ConfigError(f"predict runs on one machine: trainer.num_nodes must be 1, got {self.trainer.num_nodes}")
        if self.parts.section["resume"] and self.trainer.world_size > 1:
            raise ConfigError(f"--resume needs one process: trainer.devices must be 1, got {self.trainer.world_size}")
        log_device(self.trainer)
        table = PredictionFile(
            self._file,
            self.model.class_names,
            self.model.thresholds,
            top_k=self.parts.section["top_k"],
            selection=self._selection,
        )
        self._predict(table)
        if self.trainer.is_global_zero and table.progress.rows <= _FEW:
            _print_rows(table)
        if table.progress.rows > 1:
            _log_classes(table)
        if table.progress.errors:
            _log_errors(table)
        print_once(self._file)
        if self._embeddings:
            print_once(self._embeddings)

    def _predict(self, table: PredictionFile) -> None:
        paths = self.data.split("predict").data.sample_paths
        features = FeatureFile(self._embeddings, len(paths)) if self._embeddings else None
        about = self._about | {"--images": f"{len(paths):,} files ({_digest(paths)})"}
        writer = PredictionsWriter(table, features, about, len(paths))
        if self.parts.section["resume"] and self._resume(writer):
            return
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        with postponed(waits=True):
            self.trainer.predict(
                self.model,
                datamodule=self.data,
                ckpt_path=self.start.path,
                return_predictions=False,
                weights_only=True,
            )

    def _resume(self, writer: PredictionsWriter) -> bool:
        """Start after the images of a stopped command; return whether that had predicted all of them."""
        writer.unfinished.restore()
        writer.table.progress = writer.unfinished.progress
        done, total = writer.table.progress.rows, writer.unfinished.total
        if done:
            log.info("Resuming after %s images", f"{done:,} of {total:,}")
        else:
            log.info("There is nothing to resume: predicting all %s images", f"{total:,}")
        if done == total:
            writer.unfinished.open()
            writer.unfinished.finish()
        self.data.predicted = done
        return done == total


def _digest(paths: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _log_classes(table: PredictionFile) -> None:
    """Log how many images are of each predicted class, and on how many the model abstains."""
    counts, images = Counter(table.progress.predicted), table.progress.rows - table.progress.errors
    if not images:
        return
    abstained = counts.pop(ABSTAIN, 0) if table.selection.least is not None else 0
    most = [f"{shown(name)} {count:,} ({100 * count / images:.1f} %)" for name, count in counts.most_common(_CLASSES)]
    more = [f"and {len(counts) - _CLASSES} more classes"] if len(counts) > _CLASSES else []
    without = [f"abstained from {abstained:,} ({100 * abstained / images:.1f} %)"] if abstained else []
    log.info("Predicted for %s images: %s", f"{images:,}", ", ".join([*most, *more, *without]) or "no class")


def _log_errors(table: PredictionFile) -> None:
    """Log how many images have no prediction, and why if they are few."""
    rows, errors, first_errors, _ = table.progress
    images = f"{rows} image{'' if rows == 1 else 's'}"
    first = "; ".join(f"{shown(path)}: {shown(reason)}" for path, reason in first_errors)
    which = f": {first}" if len(first_errors) == errors else f"; see column 'error' of {table.path}"
    log.info("%d of %s could not be predicted%s", errors, images, which)


def _print_rows(table: PredictionFile) -> None:
    """Print the predictions of a few images; of a single label, the most probable class is the prediction."""
    columns = table.columns
    last = len(columns.names) - 1
    start = 3 + columns.has_sets  # after path, prediction, probability and set
    first = start if columns.multilabel else start + 2
    names = range(first, min(start + 2 * _SHOWN, last) if columns.top_k else 0, 2)
    [heading, *rows] = table.first_rows(_FEW)
    shown_rows = [[*heading[:start], *(heading[at] for at in names), heading[last]]]
    for row in rows:
        pairs = [f"{row[at]} {_rounded(row[at + 1])}".strip() for at in names]
        shown_rows.append([*row[:2], _rounded(row[2]), *row[3:start], *pairs, row[last]])
    print_table([row if table.progress.errors else row[:-1] for row in shown_rows])


def _rounded(probabilities: str) -> str:
    """Round the probabilities of a cell, of which multi-label data may have several, or none."""
    return SEPARATOR.join(f"{float(value):.4f}" for value in probabilities.split(SEPARATOR) if value)


def _output_of(section: Any, start: Start) -> Path:
    """Return the file to write the predictions to."""
    folder = run_folder_of(start.path)
    given = section["output"] or (folder or Path()) / "predictions.csv"
    check_output(given)
    file = Path(given).expanduser()
    check_format(file)
    return file


def _embeddings_of(section: Any) -> Path | None:
    """Return the file to write the features to."""
    if section["embeddings"] is None:
        return None
    file = Path(section["embeddings"]).expanduser()
    if file.suffix != ".npy":
        raise ConfigError(f"--embeddings must end with .npy, got {section['embeddings']}")
    check_output(section["embeddings"], "--embeddings", "embeddings.npy")
    return file
