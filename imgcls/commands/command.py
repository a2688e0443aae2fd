"""What a command does once its configuration is parsed: data and model meet, and the Trainer runs."""

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from imgcls.callbacks.prediction_writer import PredictionsWriter
from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.checkpoints.run_folder import run_folder_of, runs_folder
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.default_callbacks import shown_callbacks, user_callbacks
from imgcls.commands.lr_and_batch_size_finders import take_finders
from imgcls.commands.refusals import check_options
from imgcls.commands.resume import Start
from imgcls.commands.trainer import build_trainer, choose_precision, is_first_process
from imgcls.config.sections import ExperimentConfig
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.splitting.split_report import warn_missing_classes
from imgcls.datasets.dataset import PathListDataset
from imgcls.datasets.image_paths import find_images
from imgcls.errors import ConfigError, RunError
from imgcls.models.classifier import ImageClassifier
from imgcls.runtime.output_file import check_output, lock_output, release_output
from imgcls.runtime.signals import postponed
from imgcls.runtime.tables import print_results

log = logging.getLogger(__name__)


class Runnable(Protocol):
    """What a command line stands for, once its configuration is parsed."""

    def run(self) -> None:
        """Do it, and report."""


@dataclass
class Parts:
    """A parsed configuration, and the objects that are made of it.

    Args:
        command: The command.
        section: The configuration, a Namespace whose classes are made.
        saved: The configuration as plain values, for files.
        model: The model, its network not built yet.
        data: The data, not looked at yet.
        drawn_seed: Whether this process drew the seed, as ``seed_everything: true`` asks.
    """

    command: str
    section: Any
    saved: dict[str, Any]
    model: ImageClassifier
    data: ImageDataModule
    drawn_seed: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The Trainer's arguments."""
        return dict(self.section["trainer"])

    @property
    def experiment(self) -> ExperimentConfig:
        """Where runs are kept."""
        experiment: ExperimentConfig = self.section["experiment"]
        return experiment

    @property
    def runs_folder(self) -> Path:
        """The folder of all runs of this name."""
        name = self.experiment.custom_folder_name
        return runs_folder(self.experiment.output_dir, name, self.model.model_name, self.data.name)


class Command(ABC):
    """One run of a command.

    Args:
        parts: The configuration and what is made of it.
        start: The checkpoint that it starts from.
    """

    trainer: Trainer

    def __init__(self, parts: Parts, start: Start | None) -> None:
        self.parts = parts
        self.start = start
        self.model, self.data = parts.model, parts.data
        self.files = AtomicCheckpointIO(json.dumps(parts.saved))

    @abstractmethod
    def run(self) -> None:
        """Do it."""

    def evaluate(self, split: str, path: Path | None) -> dict[str, float]:
        """Return the logged values of ``validation`` or ``test``, of a checkpoint or of the weights as they are."""
        run = self.trainer.validate if split == "validation" else self.trainer.test
        with_weights: dict[str, Any] = {"ckpt_path": path, "weights_only": True} if path else {}
        with postponed(waits=True):
            run(self.model, datamodule=self.data, verbose=False, **with_weights)
        logged = self.trainer.callback_metrics  # values of the user's may have names of another form
        values = {f"{split}_{name.removeprefix(f'{split}_')}": value for name, value in logged.items()}
        return {name: float(value) for name, value in values.items()}

    def show(self, results: dict[str, dict[str, float]]) -> None:
        """Print the table of results."""
        found = {split: values for split, values in results.items() if values}
        if not found and results:
            log.info("nothing is logged, so there is nothing to show: add imgcls.MetricsLogger to trainer.callbacks")
        if self.trainer.is_global_zero and found:
            print_results(found)

    def refuse_no_numbers(self, split: str, values: Mapping[str, float], path: Path) -> None:
        """Refuse outputs that are no numbers, of which metrics are numbers that mean nothing.

        Raises:
            RunError: If the loss is not finite.
        """
        loss = values.get(f"{split}_loss", 0.0)
        if not math.isfinite(loss):
            raise RunError(
                f"{split}_loss is {loss}: the outputs of {path} are no numbers in {self.trainer.precision}; try "
                "--trainer.precision 32, or another checkpoint"
            )


class Evaluation(Command):
    """Evaluate or apply a checkpoint.

    Args:
        parts: The configuration and what is made of it.
        start: The checkpoint.
        recorded: What it says beside what the user gives.
    """

    start: Start

    def __init__(self, parts: Parts, start: Start, recorded: Recorded) -> None:
        super().__init__(parts, start)
        options = parts.options | {"precision": choose_precision(parts.options, start.record.get("precision"))}
        check_options(options, parts.command)
        if options["devices"] == "auto":
            options["devices"] = 1  # to start several processes takes longer than most evaluations
        if self.data.class_names not in ([], start.record["class_names"]):
            raise ConfigError(f"data.init_args.class_names: {start.path} has its own; leave the key out")
        self.data.class_names = list(start.record["class_names"])
        recorded.restore(self.data, parts.saved)
        self._take_images()
        self.data.setup(parts.command)
        self.model.build(self.data.class_names, start.record, weights=start.content["state_dict"])
        if parts.command != "predict":
            self.model.check_task("the data", self.data.multilabel)
        self.model.check_weights(start.content["state_dict"])
        self.model.tta = parts.section["tta"]
        callbacks, _ = take_finders(user_callbacks(options))  # which only a fit has use for
        if parts.experiment.default_callbacks:
            callbacks = shown_callbacks(callbacks, options, recorded.metrics)
        self.trainer = build_trainer(options, callbacks, self.files)

    def _take_images(self) -> None:
        """Take the images of the command line; ``predict`` alone has the option."""

    def run(self) -> None:
        """Evaluate, and print the table."""
        split = {"validate": "validation"}.get(self.parts.command, self.parts.command)
        warn_missing_classes(self.data.splitter, split)
        values = self.evaluate(split, self.start.path)
        self.refuse_no_numbers(split, values, self.start.path)
        self.show({split: values})


class Prediction(Evaluation):
    """Write a prediction for each image."""

    def __init__(self, parts: Parts, start: Start, recorded: Recorded) -> None:
        self._file = _output_of(parts.section, start)
        with ExitStack() as held:
            if is_first_process():
                held.callback(release_output, lock_output(self._file))
            _refuse_existing(self._file, parts.section)  # now that no other process is about to make it
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
            raise ConfigError("predict writes one file, and runs on one machine: --trainer.num_nodes 1")
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
            log.info("no prediction for %d of %d images; the column 'error' says why", writer.errors, writer.rows)
        print_once(writer.path)


def _output_of(section: Any, start: Start) -> Path:
    """Return the file that the predictions are written to."""
    folder = run_folder_of(start.path)
    given = section["output"] or (folder or Path()) / "predictions.csv"
    check_output(given)
    return Path(given).expanduser()


def _refuse_existing(path: Path, section: Any) -> None:
    if path.exists() and not section["overwrite"]:
        raise ConfigError(f"{path} exists; add --overwrite to replace it, or --output FILE to write another")


@rank_zero_only
def print_once(line: object) -> None:
    """Print a line in the first process alone."""
    print(line)
