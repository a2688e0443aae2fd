"""The commands: a LightningCLI, in which data, model and callbacks meet."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionYesNo
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from imgcls.arguments import EVALUATIONS, asks_for_help, checkpoint_argument, config_files, join_images
from imgcls.callbacks.predictions import PredictionsWriter
from imgcls.callbacks.run_files import RunFiles
from imgcls.callbacks.saver import CheckpointSaver
from imgcls.checkpoint import AtomicCheckpointIO, Content, read_checkpoint
from imgcls.classifier import ImageClassifier
from imgcls.config import ExperimentConfig, OptunaConfig
from imgcls.datamodule import ImageDataModule
from imgcls.defaults import add_default_callbacks, add_run_callbacks, check_monitors
from imgcls.errors import ConfigError
from imgcls.recover import evaluation_config, recorded_metrics
from imgcls.report import print_results
from imgcls.run_folder import (
    folder_name,
    new_run_folder,
    newest_best,
    newest_checkpoint,
    run_folder_of,
    runs_folder,
)
from imgcls.samples import PathListDataset, find_images
from imgcls.trainer import TRAINER_DEFAULTS, build_trainer, check_devices, is_first_process

log = logging.getLogger(__name__)

_ONE_LINE_ERRORS = {"exit_on_error": False}


class ImgclsCLI(LightningCLI):
    """``imgcls fit | validate | test | predict``.

    Args:
        arguments: The command line after the program's name.
    """

    model: ImageClassifier
    datamodule: ImageDataModule

    def __init__(self, arguments: list[str]) -> None:
        self.content: Content | None = None
        self.ckpt_path: Path | None = None
        self.folder: Path | None = None
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunFiles writes it, into our run folder
            seed_everything_default=42,
            trainer_defaults=TRAINER_DEFAULTS,
            auto_configure_optimizers=False,
            parser_kwargs=_ONE_LINE_ERRORS
            | {command: _ONE_LINE_ERRORS | {"command": command} for command in self.subcommands()},
            args=arguments,
        )

    # -- parsing

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, each with the arguments of the Trainer's method that are not options."""
        ours = {"model", "datamodule", "weights_only", "verbose", "return_predictions"}
        return {command: skipped | ours for command, skipped in LightningCLI.subcommands().items()}

    def init_parser(self, command: str = "", **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command; ``predict`` alone has options for images and output."""
        parser = super().init_parser(**kwargs)
        if command == "predict":
            parser.add_argument(
                "--images", type=list[str] | None, help="Files, folders, CSV files with a column 'path'."
            )
            parser.add_argument("--output", type=str | None, help="The CSV to write (default: in the run folder).")
            parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="Replace an existing CSV.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the sections of imgcls, and the classes that are meant where none is named."""
        parser.add_argument("--experiment", type=ExperimentConfig, default=ExperimentConfig())
        parser.add_argument("--optuna", type=OptunaConfig, default=OptunaConfig())
        parser.set_defaults({"model": "imgcls.ImageClassifier", "data": "imgcls.ImageDataModule"})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; for an evaluation the checkpoint's configuration comes first, so that whatever is typed wins."""
        arguments = list(args) if isinstance(args, list) else []
        if arguments[0] in EVALUATIONS and not asks_for_help(arguments):
            arguments = [arguments[0], *self._checkpoint_config(arguments), *join_images(arguments[1:])]
        self.config = parser.parse_args(arguments)

    def _parse_ckpt_path(self) -> None:
        """Switched off: in Lightning a checkpoint's hyperparameters beat the command line."""

    def _checkpoint_config(self, arguments: list[str]) -> list[str]:
        path = checkpoint_argument(arguments)
        if path is None:
            newest = newest_best(Path("runs"))
            hint = newest or "<run folder>/checkpoints/best.ckpt"
            raise ConfigError(f"{arguments[0]} needs the checkpoint of a trained model; type --ckpt_path {hint}")
        self._read(Path(path))
        assert self.content is not None  # noqa: S101 - for mypy
        config = evaluation_config(self.content, given_config=bool(config_files(arguments)))
        return ["--config", yaml.safe_dump(config)]

    def _read(self, path: Path) -> None:
        self.ckpt_path = path.expanduser()
        self.content = read_checkpoint(self.ckpt_path)

    # -- building

    @property
    def section(self) -> Any:
        """The parsed configuration of the command."""
        return self.config[str(self.subcommand)]

    def before_instantiate_classes(self) -> None:
        """Make paths absolute, so that what is saved can be used from anywhere."""
        section = self.section
        section["experiment.output_dir"] = _absolute(section["experiment.output_dir"])
        name = section["model.init_args.model_name"]
        if os.path.isdir(os.path.expanduser(name)):
            section["model.init_args.model_name"] = _absolute(name)
        datasets = section["data.init_args.dataset_classes"]
        for split, spec in vars(datasets).items() if datasets else ():
            if isinstance(spec, str):
                datasets[split] = _absolute(spec)
            elif spec is not None and "root" in (spec.get("init_args") or {}):
                spec["init_args.root"] = _absolute(spec["init_args.root"])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Let data and model meet, then build the Trainer around them."""
        options = dict(self.config_init[str(self.subcommand)]["trainer"])
        check_devices(options)
        self._choose_start()
        self._meet()
        callbacks = self._callbacks(options)
        files = AtomicCheckpointIO(json.dumps(self._saved_config()))
        return build_trainer(options, callbacks, files, self.folder, fitting=self.subcommand == "fit")

    def _choose_start(self) -> None:
        """Find the checkpoint that a fit starts from."""
        given = self.section.get("ckpt_path")
        if self.subcommand != "fit" or given is None:
            return
        parent = self._runs_folder()
        path = newest_checkpoint(parent) if given == "last" else Path(given)
        if path is None:
            raise ConfigError(f"--ckpt_path last: there is no checkpoint below {parent}; leave it out to start anew")
        self._read(path)

    def _runs_folder(self) -> Path:
        experiment = self.section["experiment"]
        name = experiment.custom_folder_name
        return runs_folder(experiment.output_dir, name, self.model.model_name, self.datamodule.name)

    def _meet(self) -> None:
        """Give the model the classes of the data; both take those of the checkpoint where there is one."""
        weights_only = self.section["experiment.only_weights_load"]
        record = self.content["imgcls"] if self.content else None
        if record and self.subcommand == "fit":
            self._check_same_model(record)
        if record and not (self.subcommand == "fit" and weights_only):
            self.datamodule.class_names = list(record["class_names"])
        if self.section.get("images"):
            self.datamodule.predict_on(PathListDataset(find_images(self.section["images"])))
        self.datamodule.setup(str(self.subcommand))
        self.model.build(self.datamodule.class_names, record)
        if self.content and self.subcommand == "fit" and weights_only:
            self.model.load_weights(self.content["state_dict"])

    def _check_same_model(self, record: dict[str, Any]) -> None:
        """Refuse to go on with another architecture than the checkpoint's, which would be used without a word."""
        ours, theirs = (folder_name(name) for name in (self.model.model_name, record["model_name"]))
        if ours != theirs:
            raise ConfigError(
                f"model.init_args.model_name: {self.model.model_name!r}, but {self.ckpt_path} holds "
                f"{record['model_name']!r}; name that one, or leave ckpt_path out"
            )

    # -- callbacks and files of a run

    def _callbacks(self, options: dict[str, Any]) -> list[Callback]:
        callbacks = _as_list(options["callbacks"])
        if self.section["experiment.default_callbacks"]:
            metrics = recorded_metrics(self.content) if self.content and self.subcommand != "fit" else None
            callbacks = add_default_callbacks(callbacks, options, metrics)
        if self.subcommand != "fit":
            return callbacks
        check_monitors(callbacks, validated=options["limit_val_batches"] != 0)
        if options["fast_dev_run"]:
            return add_run_callbacks(callbacks, folder=None, keep_checkpoints=False)
        self.folder = self._run_folder()
        config = yaml.safe_dump(self._saved_config(), sort_keys=False)
        keeps = options["enable_checkpointing"] is not False and self.section["experiment.default_callbacks"]
        return [RunFiles(self.folder, config), *add_run_callbacks(callbacks, self.folder, keeps)]

    def _run_folder(self) -> Path:
        """Go on in the folder of the last run, or make a new one."""
        if self.section["ckpt_path"] == "last" and not self.section["experiment.only_weights_load"] and self.ckpt_path:
            folder = run_folder_of(self.ckpt_path)
            if folder is not None:
                return folder
        if not is_first_process():
            return self._runs_folder()  # the first process makes the folder, and tells the others in fit
        return new_run_folder(self._runs_folder())

    def _saved_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.config_dump | {"ckpt_path": None}
        return config

    # -- commands

    def fit(self, **_: Any) -> None:
        """Train; then evaluate the best checkpoint."""
        if self.section["optuna.tune"]:
            log.info("optuna.tune: true does nothing under fit; the search is `imgcls tune`, which this version lacks")
        resume = self.ckpt_path if not self.section["experiment.only_weights_load"] else None
        self.trainer.fit(
            self.model, datamodule=self.datamodule, ckpt_path=resume, weights_only=True if resume else None
        )
        self._stop_if_terminated()
        if self.folder is None:
            return
        saver = next((c for c in self.trainer.checkpoint_callbacks if isinstance(c, CheckpointSaver)), None)
        if saver is not None:
            self._evaluate_best(saver)
        _print_once(self.folder)

    def validate(self, **_: Any) -> None:
        """Evaluate a checkpoint on the validation data."""
        self._show({"validation": self._evaluate("validate", self.ckpt_path)})

    def test(self, **_: Any) -> None:
        """Evaluate a checkpoint on the test data."""
        self._show({"test": self._evaluate("test", self.ckpt_path)})

    def predict(self, **_: Any) -> None:
        """Write a prediction for each image."""
        if self.trainer.world_size > 1:
            raise ConfigError("predict writes one file in order, and runs on one device: --trainer.devices 1")
        writer = PredictionsWriter(self._predictions_file(), self.model.class_names)
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        self.trainer.predict(
            self.model,
            datamodule=self.datamodule,
            ckpt_path=self.ckpt_path,
            return_predictions=False,
            weights_only=True,
        )
        if writer.errors:
            log.info("%d of %d images could not be read; the column 'error' says why", writer.errors, writer.rows)
        self._stop_if_terminated()
        print(writer.path)

    def _evaluate_best(self, saver: CheckpointSaver) -> None:
        path: Path = self.trainer.strategy.broadcast(saver.best if saver.best.exists() else saver.last)
        if saver.best_epoch is None:
            log.info("no best epoch: no finite %s was logged; the last one is evaluated", saver.monitor)
        else:
            log.info("best epoch: %d, %s %.4f", saver.best_epoch + 1, saver.monitor, saver.best_score)
        results = {"validation": self._evaluate("validate", path)} if self.trainer.limit_val_batches else {}
        if self.datamodule.has_test:
            results["test"] = self._evaluate("test", path)
        self._show(results)

    def _show(self, results: dict[str, dict[str, float]]) -> None:
        if self.trainer.is_global_zero:
            print_results(results)

    def _stop_if_terminated(self) -> None:
        if self.trainer.received_sigterm:  # Lightning finishes the loop, and returns as if all were done
            raise SIGTERMException

    def _evaluate(self, command: str, path: Path | None) -> dict[str, float]:
        run = getattr(self.trainer, command)
        run(self.model, datamodule=self.datamodule, ckpt_path=path, verbose=False, weights_only=True)
        self._stop_if_terminated()
        prefix = "validation_" if command == "validate" else "test_"
        values = self.trainer.callback_metrics
        return {name: float(value) for name, value in values.items() if name.startswith(prefix)}

    def _predictions_file(self) -> Path:
        section = self.section
        folder = run_folder_of(self.ckpt_path) if self.ckpt_path else None
        path = Path(section["output"] or (folder or Path()) / "predictions.csv").expanduser()
        if path.exists() and not section["overwrite"]:
            raise ConfigError(f"{path} exists; add --overwrite to replace it, or --output FILE to write another")
        return path


@rank_zero_only
def _print_once(line: object) -> None:
    print(line)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
