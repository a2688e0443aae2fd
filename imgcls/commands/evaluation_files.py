"""Where an evaluation leaves its figures: the run folder, or evaluations/N for other data or settings."""

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgcls.checkpoints.io import checkpoint_id
from imgcls.checkpoints.run_folder import (
    CHECKPOINTS,
    EVALUATION,
    SPLITS,
    new_evaluation_folder,
    predictions_file,
    results_file,
    run_folder_of,
)
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Parts
from imgcls.commands.evaluation_report import class_details
from imgcls.commands.resume import Start
from imgcls.data.splitting.split_report import split_table
from imgcls.data.splitting.splitter import Splitter
from imgcls.errors import ConfigError
from imgcls.metrics.class_counts import ClassCounts
from imgcls.runtime.atomic_files import write_text
from imgcls.runtime.output_file import check_output
from imgcls.runtime.tables import short_path, write_results, write_table

log = logging.getLogger(__name__)

_DATA = "data.init_args"
# keys that decide the figures, beside the limits of batches, which a checkpoint does not pass on
EVALUATION_KEYS = (
    f"{_DATA}.augmentations.eval",
    f"{_DATA}.decode",
    f"{_DATA}.image_size",
    "model.init_args.threshold",
    "trainer.precision",
)
_DATASETS = {"validation": ("validation", "train"), "test": ("test",)}  # of a split; train if it is held out of it
_LIMITS = {"validation": "trainer.limit_val_batches", "test": "trainer.limit_test_batches"}


class EvaluationFiles:
    """The files of ``validate`` or ``test``.

    Raises:
        ConfigError: If ``--output`` has such files, is a run folder, or cannot be written.
    """

    def __init__(self, parts: Parts, split: str, start: Start, recorded: Recorded) -> None:
        self.split = split
        self.start = start
        self.parts = parts
        self.changed = _changed(parts, split, recorded)
        self.output: Path | None = None if parts.section["output"] is None else Path(parts.section["output"])
        self.folder: Path | None = None
        self.is_new = False
        if self.output is not None:
            check_output(self.output / results_file(split))
            _refuse_run_folder(self.output)
            if taken := self._taken(self.output):
                raise ConfigError(f"--output {self.output}: {taken.name} exists; give another folder")

    def choose(self) -> Path | None:
        """Return the folder, made if it is new; None, logged, if nothing is kept."""
        if self.parts.options["fast_dev_run"]:
            log.info("trainer.fast_dev_run: results are not kept")
            return None
        run = self.output or run_folder_of(self.start.path)
        if run is None:
            log.info("%s is not in a run folder: results are not kept; to keep them: --output FOLDER", self.start.path)
        elif not os.access(run, os.W_OK):
            log.info("%s cannot be written to: results are not kept; to keep them: --output FOLDER", run)
        elif self.output is not None or (not self.changed and self._is_same(run)):
            self.folder = run
        else:
            self.folder = new_evaluation_folder(run)
            self.is_new = True
        return self.folder

    def write(self, values: Mapping[str, float], counts: ClassCounts | None, splitter: Splitter) -> None:
        """Write the metrics and the scores of the classes; of an evaluation of its own also what it was of.

        ``counts`` is None if the counts of the classes are unknown.
        """
        if self.folder is None:
            return
        about = about_evaluation(self.parts, self.start.path)
        results, epoch = self.folder / results_file(self.split), self.start.content.get("epoch")
        write_results(results, epoch, {self.split: values}, about, class_details({self.split: counts}))
        if self.is_new or self.output is not None:
            images = {} if counts is None else {"images": counts.images}
            record = {"command": self.parts.command, **about, **images, "changed": self.changed}
            record["trained_on"] = splitter.trained_on.get(self.split)
            write_text(self.folder / EVALUATION, json.dumps(record, indent=2, default=str) + "\n")
            if splitter.datasets[splitter.source(self.split)] is not None:  # else of a user's own datamodule
                write_table(self.folder / SPLITS, split_table(splitter, [self.split]))

    def log(self) -> None:
        """Log where the files are."""
        if self.folder is None:
            return
        results, rows = self.folder / results_file(self.split), self.folder / predictions_file(self.split)
        more = f"\nOne row per image: {short_path(rows)}" if rows.exists() else ""
        log.info("Results: %s%s", short_path(results), more)

    def forget(self) -> None:
        """Remove the folder of a failed evaluation, if nothing is in it."""
        if self.folder is not None and self.is_new:
            with suppress(OSError):
                self.folder.rmdir()

    def _taken(self, folder: Path) -> Path | None:
        paths = (folder / name for name in (results_file(self.split), predictions_file(self.split)))
        return next((path for path in paths if path.exists()), None)

    def _is_same(self, run: Path) -> bool:
        """Whether the run folder has no such results, or those of the same checkpoint."""
        if self._taken(run) is None:
            return True
        try:
            before = json.loads((run / results_file(self.split)).read_text(encoding="utf-8"))
            return bool(before["checkpoint_id"] == checkpoint_id(self.start.path))
        except (OSError, ValueError, TypeError, KeyError):
            return False


def _refuse_run_folder(folder: Path) -> None:
    """Refuse a folder whose report and tables are those of a run."""
    if (folder / CHECKPOINTS).is_dir() or (folder / "config.yaml").is_file():
        raise ConfigError(
            f"--output {folder}: this is the folder of a run, whose report and tables would be replaced; give another "
            f"folder, for example --output {folder / 'more_photos'}"
        )


def about_evaluation(parts: Parts, path: Path | None) -> dict[str, Any]:
    """Return what results say of the checkpoint that they are of, its model, the size of the images and the task.

    ``path`` is None for the last weights. The size is known after the evaluation.
    """
    checkpoint = {} if path is None else {"checkpoint": str(path.absolute()), "checkpoint_id": checkpoint_id(path)}
    size = parts.data.pipelines.sizes.get("eval")  # unknown for the loaders of a user's own datamodule
    image_size = {} if size is None else {"image_size": list(size)}
    task = {"multilabel": parts.model.multilabel, "thresholds": parts.model.thresholds}
    return {**checkpoint, "model_name": parts.model.model_name, **image_size, **task}


def changed_settings(parts: Parts, recorded: Recorded) -> dict[str, Any]:
    """Return which settings of an evaluation differ from those of the run and change probabilities: key -> value."""
    found = recorded.changed(parts.saved, EVALUATION_KEYS)
    options = {"tta": parts.section["tta"], "raw": parts.section["raw"]}
    return found | {name: value for name, value in options.items() if value not in ("none", False)}


def _changed(parts: Parts, split: str, recorded: Recorded) -> dict[str, Any]:
    """Return what differs from the run and changes the figures: dotted key -> value."""
    datasets = [f"{_DATA}.dataset_classes.{name}" for name in _DATASETS[split]]
    found = recorded.changed(parts.saved, datasets) | changed_settings(parts, recorded)
    limit = _LIMITS[split]
    now, before = parts.options[limit.partition(".")[2]], recorded.value(limit)
    if repr(1.0 if now is None else now) != repr(1.0 if before is None else before):  # 1 is one batch, 1.0 all
        found[limit] = now
    return found
