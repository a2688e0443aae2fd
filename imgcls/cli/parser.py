"""The command line: a LightningCLI whose parser makes model, data and callbacks, and runs a command with them."""

import logging
import os
import re
import secrets
import warnings
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace, set_dumper
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from imgcls.cli.argv import EVALUATIONS, TRAINER_COMMANDS, CommandLine
from imgcls.cli.options import add_options
from imgcls.commands.absolute_paths import make_absolute
from imgcls.commands.checkpoint_config import DEFAULT_CLASSES, Recorded
from imgcls.commands.command import Command, Parts
from imgcls.commands.evaluate import Evaluation
from imgcls.commands.fit import Fit
from imgcls.commands.predict import Prediction
from imgcls.commands.resume import Start, open_start, trained_checkpoint
from imgcls.commands.resume_checks import check_same_model
from imgcls.commands.trainer import SILENT, ImgclsTrainer, as_list, is_first_process
from imgcls.commands.tune_trials import Trials, plain_values
from imgcls.config.overrides import full_key, with_values
from imgcls.config.sections import DIVIDING, ExperimentConfig, OptunaConfig
from imgcls.config.yaml_values import dump_yaml, read_value
from imgcls.data.datamodule import ImageDataModule
from imgcls.errors import ConfigError
from imgcls.models.classifier import ImageClassifier
from imgcls.runtime.distributed import ending_together

log = logging.getLogger(__name__)

_LARGEST_SEED = 2**32 - 1  # numpy's
_NOT_OPTIONS = {  # arguments of the Trainer's methods
    *("model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders", "search", "scan"),
    *("weights_only", "verbose", "return_predictions"),
    "ckpt_path",  # which add_options adds, with a help text for each command
}
_THRESHOLD = re.compile(r"--model\.(init_args\.)?threshold\b")  # the one option of the model in an evaluation
_SPLIT = re.compile(rf"--data\.(init_args\.)?({'|'.join(DIVIDING)})\b")
_OF_CHECKPOINT = re.compile(r"data\.init_args\.(augmentations\.eval|dataset_classes\.\w+)(?=\.)")


class ImgclsCLI(LightningCLI):
    """``imgcls fit | validate | test | predict | tune | check``.

    Args:
        arguments: The command line after the program's name.
        callbacks: Callbacks of a fit in Python, beside the configured ones.
    """

    model: ImageClassifier
    datamodule: ImageDataModule
    trainer: ImgclsTrainer
    command: Command

    def __init__(self, arguments: list[str], callbacks: Sequence[Callback] = ()) -> None:
        self.typed = arguments
        self.own_callbacks = callbacks
        self.line = CommandLine(arguments)
        self.start: Start | None = None
        self.recorded: Recorded | None = None
        self.ckpt_path: str | None = None
        self.drawn_seed = False
        set_dumper("yaml", dump_yaml)
        one_line = {"exit_on_error": False}  # raise what cli/run_command.py prints
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunFiles writes it, into our run folder
            seed_everything_default=42,
            trainer_class=ImgclsTrainer,
            auto_configure_optimizers=False,
            parser_kwargs=one_line | {command: one_line | {"command": command} for command in TRAINER_COMMANDS},
            args=arguments,
        )

    # -- parsing

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, each with the arguments of the Trainer's method that are not options."""
        return {command: set(_NOT_OPTIONS) for command in TRAINER_COMMANDS}

    def init_parser(self, command: str = "", **kwargs: Any) -> LightningArgumentParser:
        """Make the main parser, or that of a command."""
        parser = super().init_parser(**kwargs)
        if command:
            add_options(parser, command)
        return parser

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of Trainer, model and data, none of them required: a default class is set below."""
        parser.add_lightning_class_args(ImgclsTrainer, "trainer")
        for base, section in ((ImageClassifier, "model"), (ImageDataModule, "data")):
            parser.add_lightning_class_args(base, section, subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the sections of imgcls, and the default classes of model and data."""
        parser.add_argument("--experiment", type=ExperimentConfig, default=ExperimentConfig())
        parser.add_argument("--optuna", type=OptunaConfig, default=OptunaConfig())
        parser.set_defaults(DEFAULT_CLASSES)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line; in an evaluation, add the configuration of the checkpoint."""
        line = self.line
        if line.asks_for_help and line.items:
            raise ConfigError(f"--print_config does not show --{next(iter(line.items))}; write it into a --config file")
        if line.command in EVALUATIONS and not line.asks_for_help:
            self._parse_evaluation(parser)
        else:
            self.config = parser.parse_args(line.arguments)
            self._set_items(line.items)
        if line.images:
            self._section["images"] = line.images
        self._choose_seed(self._section)
        # Lightning 2.6 would replace what the user gives by the hyper-parameters of a checkpoint that it finds here
        self.ckpt_path, self._section["ckpt_path"] = self._section["ckpt_path"], None

    @property
    def _section(self) -> Namespace:
        """The parsed configuration of the command."""
        return self.config[self.line.command]

    def _parse_evaluation(self, parser: LightningArgumentParser) -> None:
        """Find the checkpoint, and take from it what the user does not give; untrusted, it passes by the parser."""
        parsed = parser.parse_args(self.line.arguments, defaults=False)
        section = parsed[self.line.command]
        given = set(section.keys(branches=True))
        for name, default in DEFAULT_CLASSES.items():  # the parser adds them where arguments alone are given
            if section.get(f"{name}.class_path") == default and name not in self.line.classes:
                given.discard(f"{name}.class_path")
        items, edits = {}, {}
        for key, text in self.line.items.items():
            of_checkpoint = _OF_CHECKPOINT.match(full_key(key))
            if of_checkpoint and of_checkpoint[0] not in given:
                edits[full_key(key)] = text
            else:
                items[key] = text
        self.start = self._open_checkpoint(section)
        self.recorded = Recorded(self.start, given | {full_key(key) for key in items}, edits)
        self.config = parser.parse_object(parsed)
        self._set_items(items)
        for key, value in self.recorded.numbers.items():
            if key in self._section:  # a data class of the user may have other arguments
                self._section[key] = value

    def _open_checkpoint(self, given: Namespace) -> Start:
        """Read the checkpoint to evaluate; refuse options that contradict it."""
        command = self.line.command
        runs = given.get("experiment.output_dir", ExperimentConfig().output_dir)
        path = trained_checkpoint(command, given.get("ckpt_path"), runs)
        for name in self.line.names:
            if name.startswith("--model") and not _THRESHOLD.match(name):
                raise ConfigError(f"{command} uses the model of the checkpoint; leave {name} out")
            if _SPLIT.match(name):
                raise ConfigError(f"{command} uses the train/validation split of the checkpoint; leave {name} out")
        return open_start(path)

    def _set_items(self, items: dict[str, str]) -> None:
        """Change items of lists, which the parser's own options do not reach."""
        if items:
            values = {full_key(key): read_value(text) for key, text in items.items()}
            changed = with_values(plain_values(self.parser, self.config), values, "command line")
            self.config = self.parser.parse_object({"subcommand": self.line.command, self.line.command: changed})

    def _choose_seed(self, section: Namespace) -> None:
        """Draw the seed that ``seed_everything: true`` asks for."""
        seed = section["seed_everything"]
        self.drawn_seed = seed is True
        if self.drawn_seed:
            section["seed_everything"] = seed = _drawn_seed(section["trainer.num_nodes"])
            log.info("seed_everything: %d, drawn at random", seed)
        if seed is False or not 0 <= seed <= _LARGEST_SEED:
            raise ConfigError(
                f"seed_everything must be a number from 0 to {_LARGEST_SEED}, or true to draw one, got {seed}"
            )

    # -- building

    def before_instantiate_classes(self) -> None:
        """Make paths absolute, so that saved files can be used from any working directory."""
        make_absolute(self._section)

    def instantiate_trainer(self, **kwargs: Any) -> ImgclsTrainer:
        """Set up the command, which builds its Trainer around model and data."""
        if self.line.command in {"tune", "check"}:
            with warnings.catch_warnings(action="ignore"):  # of a GPU that it does not use
                return ImgclsTrainer(accelerator="cpu", devices=1, **SILENT)  # trials have Trainers of their own
        if self.start is not None and self.recorded is not None:
            if not self.recorded.names_model:
                self.model.model_name = self.start.record["model_name"]
            check_same_model(self.start, self.model.model_name)
            kind = Prediction if self.line.command == "predict" else Evaluation
            self.command = kind(self._parts, self.start, self.recorded)
        else:
            if self._section["optuna.tune"]:
                log.info("optuna.tune: true has no effect in fit; to search: imgcls tune")
            parts = self._parts
            if self.own_callbacks:
                configured = as_list(parts.section["trainer.callbacks"])
                parts.section["trainer.callbacks"] = [*configured, *self.own_callbacks]
            self.command = Fit(parts)
        return self.command.trainer

    @property
    def _parts(self) -> Parts:
        name = self.line.command
        section, saved = self.config_init[name], self.config_dump | {"ckpt_path": None}
        return Parts(name, section, saved, self.model, self.datamodule, self.ckpt_path, self.drawn_seed)

    # -- commands, which Lightning calls by their names

    def fit(self, **_: Any) -> None:
        """Train; then evaluate the best epoch."""
        self._run()

    def validate(self, **_: Any) -> None:
        """Evaluate a checkpoint on the validation data."""
        self._run()

    def test(self, **_: Any) -> None:
        """Evaluate a checkpoint on the test data."""
        self._run()

    def predict(self, **_: Any) -> None:
        """Write a CSV of predictions."""
        self._run()

    def _run(self) -> None:
        with ending_together(self.command.trainer):
            self.command.run()

    def tune(self, **_: Any) -> None:
        """Search the best values of keys with Optuna; each trial is a fit."""
        from imgcls.commands.tune import Tune  # takes a second: Optuna, SQLAlchemy, matplotlib

        trials = Trials(self, self._parts)
        search = Tune(self._parts, trials.check, trials.fit, self.typed)
        self.trainer.tune(search.run)

    def check(self, **_: Any) -> None:
        """Check the data before training."""
        from imgcls.commands.check import Check  # takes a second: perceptual hashes

        self.trainer.check(Check(self._parts).run)


def _drawn_seed(machines: int) -> int:
    """Draw a seed; the processes that the first one starts take its own, which Lightning passes to them."""
    if is_first_process() and machines == 1:  # each machine has a first process
        return secrets.randbelow(_LARGEST_SEED + 1)
    if "PL_GLOBAL_SEED" not in os.environ:
        raise ConfigError("seed_everything: true would draw another number in each process; give a number")
    return int(os.environ["PL_GLOBAL_SEED"])
