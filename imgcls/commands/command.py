"""The base of the commands that run a Trainer: the parsed configuration, evaluation, results."""

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from imgcls.callbacks.evaluation_writer import EvaluationWriter
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.checkpoints.run_folder import predictions_file, runs_folder
from imgcls.commands.evaluation_report import print_classes
from imgcls.commands.resume import Start
from imgcls.commands.trainer import ImgclsTrainer
from imgcls.config.sections import ExperimentConfig
from imgcls.data.datamodule import ImageDataModule
from imgcls.errors import RunError
from imgcls.metrics.class_counts import ClassCounts
from imgcls.models.classifier import ImageClassifier
from imgcls.runtime.signals import postponed
from imgcls.runtime.tables import print_results

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """A parsed configuration, and the objects that are made of it.

    Args:
        command: The command.
        section: The configuration, a Namespace whose classes are made.
        saved: The configuration as plain values, for files.
        model: The model, its network not built yet.
        data: The data, not set up yet.
        ckpt_path: The checkpoint to start from.
        drawn_seed: Whether this process drew the seed, as ``seed_everything: true`` asks.
    """

    command: str
    section: Any
    saved: dict[str, Any]
    model: ImageClassifier
    data: ImageDataModule
    ckpt_path: str | None = None
    drawn_seed: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The Trainer's arguments."""
        return dict(self.section["trainer"])

    @property
    def experiment(self) -> ExperimentConfig:
        """The section ``experiment``."""
        experiment: ExperimentConfig = self.section["experiment"]
        return experiment

    @property
    def runs_folder(self) -> Path:
        """The folder of all runs of this name."""
        name = self.experiment.custom_folder_name
        return runs_folder(self.experiment.output_dir, name, self.model.model_name, self.data.name)


class Command(ABC):
    """A command that runs a Trainer; ``start`` is None for a new run."""

    trainer: ImgclsTrainer

    def __init__(self, parts: Parts, start: Start | None) -> None:
        self.parts = parts
        self.start = start
        self.model, self.data = parts.model, parts.data
        self.model.adds_metrics = False  # the command adds callbacks, as configured
        self.counts: dict[str, ClassCounts | None] = {}
        known = None if start is None else (start.path, start.content)
        self.files = AtomicCheckpointIO(json.dumps(parts.saved), known)

    @abstractmethod
    def run(self) -> None:
        """Run the command, and report."""

    def evaluate(self, split: str, path: Path | None, folder: Path | None = None) -> dict[str, float]:
        """Return the logged values of a split; write one row per image.

        Args:
            split: ``validation`` or ``test``.
            path: The checkpoint to evaluate; None for the current weights.
            folder: The folder of the rows; None to write none. That of the first process counts.
        """
        run = self.trainer.validate if split == "validation" else self.trainer.test
        with_weights: dict[str, Any] = {"ckpt_path": path, "weights_only": True} if path else {}
        if folder is not None and self.trainer.num_nodes > 1:
            log.info("%s is not written by several machines", predictions_file(split))
            folder = None
        writer = EvaluationWriter(None if folder is None else folder / predictions_file(split))
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        with postponed(waits=True):
            run(self.model, datamodule=self.data, verbose=False, **with_weights)
        self.trainer.callbacks.remove(writer)  # type: ignore[attr-defined]
        if writer.missing:
            log.info("No row per image and no scores of classes for %s: %s", split, writer.missing)
        self.counts[split] = writer.counts
        logged = self.trainer.callback_metrics  # values that a user's class logs may have other names
        values = {f"{split}_{name.removeprefix(f'{split}_')}": value for name, value in logged.items()}
        return {name: float(value) for name, value in values.items()}

    def show(self, results: dict[str, dict[str, float]]) -> None:
        """Print the table of results, and the scores of the classes of the last split."""
        found = {split: values for split, values in results.items() if values}
        if not found and results:
            log.info("No metric was logged: add imgcls.MetricsLogger to trainer.callbacks")
        if not self.trainer.is_global_zero:
            return
        if found:
            print_results(found)
        for split in list(results)[-1:]:
            if (counts := self.counts.get(split)) is not None:
                print_classes(split, counts)

    def refuse_not_finite_loss(self, split: str, values: Mapping[str, float], path: Path) -> None:
        """Refuse outputs that are not finite, whose metrics would mean nothing.

        Raises:
            RunError: If the loss is not finite.
        """
        loss = values.get(f"{split}_loss", 0.0)
        if not math.isfinite(loss):
            raise RunError(
                f"{split}_loss is {loss}: the outputs of {path} are not finite in precision {self.trainer.precision}; "
                "try --trainer.precision 32, or another checkpoint"
            )


@rank_zero_only
def print_once(line: object) -> None:
    """Print a line, in the process of rank 0 only."""
    print(line)
