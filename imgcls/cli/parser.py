"""The command line: a LightningCLI whose parser makes model, data and callbacks, and hands them to a command."""

import gc
import json
import logging
import os
import re
import secrets
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from imgcls.checkpoints.run_folder import newest_best
from imgcls.cli.argv import (
    EVALUATIONS,
    IMAGES,
    LISTS,
    WITH_IMAGES,
    GivenKeys,
    asks_for_help,
    checkpoint_argument,
    files_first,
    join_list,
    output_dir_argument,
    split_items,
    take_list,
)
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Command, Evaluation, Parts, Prediction, Runnable
from imgcls.commands.fit import Fit, Trial
from imgcls.commands.lr_and_batch_size_finders import refuse_in_trials
from imgcls.commands.refusals import check_options
from imgcls.commands.resume import Start, check_same_model, open_start
from imgcls.commands.trainer import TRAINER_DEFAULTS, ImgclsTrainer, as_list, is_first_process
from imgcls.config.overrides import full_key, public_class, with_values
from imgcls.config.sections import DIVIDING, ExperimentConfig, OptunaConfig
from imgcls.data.datamodule import ImageDataModule
from imgcls.errors import ConfigError, ImgclsError
from imgcls.models.classifier import ImageClassifier
from imgcls.models.huggingface.hub import load_config
from imgcls.models.tta import TTA
from imgcls.runtime.distributed import code_of_others, end_others

log = logging.getLogger(__name__)

# a default may be a string and more (Timer's ``interval``); jsonargparse leaves it to PyYAML, which takes str alone
yaml.SafeDumper.add_multi_representer(str, yaml.SafeDumper.represent_str)
# jsonargparse reads a class or folder named 1e3 as a number, unless it is quoted
yaml.SafeDumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9_.]+e[-+]?[0-9]+$", re.I), None)

_ONE_LINE_ERRORS = {"exit_on_error": False}
_CHECKED = (
    "Folders of class folders, or of images, each read as train; a folder with 'train' and 'validation' (or 'val', "
    "'valid') or 'test' in it as these splits. In place of data.dataset_classes."
)
_CHECKPOINT = "The checkpoint of a trained model, a file; a run keeps its best in checkpoints/best.ckpt."
_CKPT_PATH = {  # command -> its own words, where Lightning's are of what imgcls does not do
    "fit": "A checkpoint whose run goes on; 'last' is the newest of the runs of this name.",
    "tune": "Must be null: a search begins its trials anew.",
    "check": "Not read.",
}
_TRAINER_HELP = {  # the same for all
    "trainer.precision": "How numbers are computed: 16, bf16, 32, … Null: chosen for the processor or GPU, and said.",
    "trainer.num_sanity_val_steps": "Batches to validate before training, as a test. Default: 0.",
    "trainer.enable_model_summary": "Print a table of the layers. Default: False.",
    "trainer.benchmark": "cuDNN tries which kernels are the fastest. Null: unless ``deterministic`` is set.",
}
_TTA = (
    "Test-time augmentation: what is said of an image is the mean over itself and its mirror image (hflip), or also "
    "both upside down (flips)."
)
_OUTPUT = "The CSV to write (default: predictions.csv in the checkpoint's run folder, else in the working directory)."
# arguments that are paths, beside the root of any dataset class
_PATHS = {
    "imgcls.CsvImageDataset": ("csv",),
    "imgcls.ShardImageDataset": ("shards",),
    "imgcls.HubImageDataset": ("name",),
    "imgcls.StreamImageDataset": ("urls",),
}
_DECIDING = re.compile(r"--model\.(init_args\.)?threshold\b")  # of a checkpoint's model, what may be given anew
_DIVIDING = re.compile(rf"--data\.(init_args\.)?({'|'.join(DIVIDING)})\b")
_LARGEST_SEED = 2**32 - 1  # numpy's


class ImgclsCLI(LightningCLI):
    """``imgcls fit | validate | test | predict | tune | check``.

    Args:
        arguments: The command line after the program's name; or, for a fit, its whole configuration.
        trial: Set for a fit within a search.
    """

    model: ImageClassifier
    datamodule: ImageDataModule
    command: Runnable

    def __init__(self, arguments: list[str] | dict[str, Any], trial: Trial | None = None) -> None:
        self.start: Start | None = None
        self.recorded: Recorded | None = None
        self.arguments = arguments
        self.trial = trial
        self.drawn_seed = False
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunFiles writes it, into our run folder
            seed_everything_default=42,
            trainer_class=ImgclsTrainer,
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
        commands = LightningCLI.subcommands() | {"tune": set(), "check": set()}
        return {command: skipped | ours for command, skipped in commands.items()}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Set the parser up, with our words where the defaults are not Lightning's."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for command, parser in self._subcommand_parsers.items():
            words = _TRAINER_HELP | {"ckpt_path": _CKPT_PATH.get(command, _CHECKPOINT)}
            for action in parser._actions:  # noqa: SLF001 - argparse offers no other way
                action.help = words.get(action.dest, action.help)

    def init_parser(self, command: str = "", **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command; ``predict`` and ``check`` have options for images and output."""
        parser = super().init_parser(**kwargs)
        if command in EVALUATIONS:
            parser.add_argument("--tta", type=TTA, default="none", help=_TTA)
        if command == "predict":
            parser.add_argument(
                "--images", type=list[str] | None, help="Files, folders, CSV files with a column 'path'."
            )
            parser.add_argument("--output", type=str | None, help=_OUTPUT)
            parser.add_argument(
                "--overwrite", action=ActionYesNo(no_prefix=None), default=False, help="Replace an existing CSV."
            )
        if command == "check":
            parser.add_argument("--images", type=list[str] | None, help=_CHECKED)
            parser.add_argument("--json", type=str | None, help="Write all findings to this file, for machines.")
            parser.add_argument(
                "--html", type=str | None, help="Write a page of the duplicates to this file, to look at."
            )
            parser.add_argument(
                "--allow",
                type=list[Literal["leakage", "unreadable"]] | None,
                help="Findings that do not end the command with an error.",
            )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the sections of imgcls, and the classes that are meant where none is named."""
        parser.add_argument("--experiment", type=ExperimentConfig, default=ExperimentConfig())
        parser.add_argument("--optuna", type=OptunaConfig, default=OptunaConfig())
        parser.set_defaults({"model": "imgcls.ImageClassifier", "data": "imgcls.ImageDataModule"})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; of an evaluation, what the user does not give is the checkpoint's, past the parser."""
        if isinstance(args, dict):
            self.config = parser.parse_object(args)
            return
        arguments = files_first(args) if isinstance(args, list) else []
        images: list[str] = []
        if arguments[0] in WITH_IMAGES and not asks_for_help(arguments):
            arguments, images = take_list(IMAGES, arguments)  # past the parser: its YAML takes UTF-8 alone
        for option in LISTS:
            arguments = join_list(option, arguments)
        if arguments[0] in EVALUATIONS and not asks_for_help(arguments):
            self.start = self._open_checkpoint(arguments)
        given = GivenKeys(arguments)
        arguments, items = split_items(arguments)
        if self.start is not None:
            items, steps = _divide_steps(items, given)
            self.recorded = Recorded(self.start.content, given, steps)
            arguments = [arguments[0], *self._stand_ins(self.recorded), *arguments[1:]]
        if items and any(argument.startswith("--print_config") for argument in arguments):
            raise ConfigError(f"--print_config does not show --{next(iter(items))}; write that into a file of --config")
        self.config = parser.parse_args(arguments)
        if items:
            self._set_items(parser, items)
        if images:
            self.config[f"{arguments[0]}.images"] = images
        if self.recorded is not None:
            self._set_numbers(self.recorded)

    @staticmethod
    def _stand_ins(recorded: Recorded) -> list[str]:
        stand_ins = recorded.stand_ins()
        return ["--config", json.dumps(stand_ins)] if stand_ins else []

    def _set_numbers(self, recorded: Recorded) -> None:
        section = self.config[self.config.subcommand]
        for key, value in recorded.numbers.items():
            if key in section:  # a data class of the user's own may have other arguments
                section[key] = value

    def _set_items(self, parser: LightningArgumentParser, items: dict[str, str]) -> None:
        """Change items of lists, which the parser's own options do not reach."""
        command = str(self.config.subcommand)
        plain = yaml.safe_load(parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml"))
        changed = with_values(plain[command], _read(items), "command line")
        self.config = parser.parse_object({"subcommand": command, command: changed})

    def _parse_ckpt_path(self) -> None:
        """Switched off: in Lightning a checkpoint's hyperparameters beat the command line."""

    def _open_checkpoint(self, arguments: list[str]) -> Start:
        """Read the checkpoint that an evaluation is of; refuse options of what it decides itself."""
        path = checkpoint_argument(arguments)
        if path in {None, "last"}:
            runs = output_dir_argument(arguments) or ExperimentConfig().output_dir
            newest = newest_best(Path(runs))
            hint = shlex.quote(str(newest)) if newest else "<run folder>/checkpoints/best.ckpt"
            raise ConfigError(f"{arguments[0]} needs the checkpoint of a trained model; type --ckpt_path {hint}")
        typed = [argument for argument in arguments if argument.startswith("--model") and not _DECIDING.match(argument)]
        if typed:
            raise ConfigError(f"{arguments[0]}: the model is the checkpoint's; leave out {typed[0]}")
        typed = [argument for argument in arguments if _DIVIDING.match(argument)]
        if typed:
            raise ConfigError(
                f"{arguments[0]}: train and validation are divided as the checkpoint records it; leave out {typed[0]}"
            )
        return open_start(path)

    def _set_seed(self) -> None:
        seed = self.section["seed_everything"]
        if seed is True:
            self.drawn_seed = True
            self.section["seed_everything"] = seed = _drawn_seed(self.section["trainer.num_nodes"])
            log.info("seed_everything: %d, drawn", seed)
        if seed is False or not 0 <= (seed or 0) <= _LARGEST_SEED:
            raise ConfigError(f"seed_everything: {seed}; a number from 0 to {_LARGEST_SEED}, or true to have one drawn")
        super()._set_seed()

    # -- building

    @property
    def section(self) -> Any:
        """The parsed configuration of the command."""
        return self.config[str(self.subcommand)]

    def before_instantiate_classes(self) -> None:
        """Make paths absolute, so that what is saved can be used from anywhere."""
        section = self.section
        section["experiment.output_dir"] = _absolute(section["experiment.output_dir"])
        for key in ("model.class_path", "data.class_path"):
            section[key] = public_class(section[key])
        # a class of one's own may have other arguments
        for key, fits in (("model.init_args.model_name", os.path.isdir), ("data.init_args.cache_dir", _always)):
            if section.get(key) is not None:
                section[key] = _absolute(section[key], fits)
        datasets = section.get("data.init_args.dataset_classes")
        for split, spec in vars(datasets).items() if datasets else ():
            # jsonargparse makes the text None of a null on the command line, where a class or a text may stand
            if spec == "None":
                datasets[split] = None
            elif isinstance(spec, str):
                datasets[split] = spec if spec.lstrip().startswith("{") else _absolute(spec)  # else it is no path
            elif spec is not None:
                spec["class_path"] = public_class(spec["class_path"])
                arguments = spec.get("init_args") or Namespace()
                for key in [key for key, value in vars(arguments).items() if value == "None"]:
                    arguments[key] = None
                _make_absolute(spec["class_path"], arguments)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the command of the parts; it builds the Trainer around them."""
        name = str(self.subcommand)
        saved = self.config_dump | {"ckpt_path": None}
        parts = Parts(name, self.config_init[name], saved, self.model, self.datamodule, self.drawn_seed)
        if name == "tune":
            from imgcls.commands.tune import Tune  # takes a second: Optuna, SQLAlchemy, matplotlib

            self.command = Tune(parts, self._check, partial(fit_trial, base=parts), list(self.arguments))
            return self.trainer_class  # type: ignore[return-value]  # Lightning asks it for its method alone
        if name == "check":
            from imgcls.commands.check import Check  # takes a second: perceptual hashes

            self.command = Check(parts)
            return self.trainer_class  # type: ignore[return-value]
        command = self._with_trainer(parts)
        self.command = command
        return command.trainer

    def _with_trainer(self, parts: Parts) -> Command:
        if self.start is not None and self.recorded is not None:
            # the network is built from the checkpoint's record; a configuration that names another model shows by this
            if not self.recorded.given.names("model.init_args.model_name"):
                self.model.model_name = self.start.record["model_name"]
            check_same_model(self.start, self.model.model_name)
            return (Prediction if parts.command == "predict" else Evaluation)(parts, self.start, self.recorded)
        if self.section["optuna.tune"] and self.trial is None:
            log.info("optuna.tune: true does nothing under fit; type imgcls tune for the search")
        return Fit(parts, self.trial)

    # -- commands

    def fit(self, **_: Any) -> None:
        """Run the command; a connection that another process broke ends this one as that one ended."""
        try:
            self.command.run()
        except (KeyboardInterrupt, SystemExit):
            for process in self._started:  # where it has heard already, it is the same signal to it
                process.terminate()
            end_others(self._started)
            raise
        except Exception as error:
            started = self._started
            broken = isinstance(error, RuntimeError) and not isinstance(error, ImgclsError)
            code = code_of_others(error, started) if broken else None
            end_others(started)
            if code is None:
                raise
            raise SystemExit(code) from error

    @property
    def _started(self) -> "Sequence[Popen[bytes]]":
        """The processes that this one has started for further devices."""
        trainer = getattr(self.command, "trainer", None)
        return [] if trainer is None else getattr(trainer.strategy.launcher, "procs", [])

    validate = test = predict = tune = check = fit  # Lightning calls the one of the command's name

    def _check(self, config: dict[str, Any]) -> None:
        """Parse the configuration of a fit and make its classes; the real parser refuses what is wrong."""
        parsed = self.parser.parse_object({"subcommand": "fit", "fit": config})
        made = self.parser.instantiate_classes(parsed)["fit"]
        check_options(dict(made["trainer"]), "fit")
        refuse_in_trials(as_list(made["trainer"]["callbacks"]))
        made["data"].pipelines.check()
        load_config(made["model"].model_name)


def fit_trial(
    config: dict[str, Any], folder: Path, callbacks: Sequence[Callback], base: Parts | None = None
) -> dict[str, Any] | None:
    """Fit a configuration as a trial of a search.

    Args:
        config: The resolved configuration of a fit.
        folder: Its run folder.
        callbacks: Callbacks of the search.
        base: What all trials share.

    Returns:
        The logged values of the best epoch; None where the deciding value was never a number.
    """
    gc.collect()  # models hang in circles; the memory of the trial before is needed now
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    command = ImgclsCLI({"subcommand": "fit", "fit": config}, Trial(folder, callbacks, base)).command
    return command.best_row if isinstance(command, Fit) else None


def _divide_steps(items: dict[str, str], given: GivenKeys) -> tuple[dict[str, str], dict[str, Any]]:
    """Divide items of lists into those of the configuration, and dotted key -> value of the checkpoint's own steps."""
    of_steps: dict[str, str] = {}
    if not given.names("data.init_args.augmentations.eval"):
        of_steps = {name: text for name, text in items.items() if name.startswith("data.augmentations.eval.")}
    return {name: text for name, text in items.items() if name not in of_steps}, _read(of_steps)


def _read(items: dict[str, str]) -> dict[str, Any]:
    """Read the texts of items as the parser reads values: full dotted key -> value."""
    reader = ArgumentParser(exit_on_error=False)
    reader.add_argument("--value", type=Any)
    return {full_key(key): reader.parse_args([f"--value={text}"]).value for key, text in items.items()}


def _drawn_seed(machines: int) -> int:
    """Draw a seed; the processes that the first one starts take its own, which Lightning hands them."""
    if is_first_process() and machines == 1:  # each machine has a first one
        return secrets.randbelow(_LARGEST_SEED + 1)
    if "PL_GLOBAL_SEED" not in os.environ:
        raise ConfigError("seed_everything: true would draw another number in each process; give a number")
    return int(os.environ["PL_GLOBAL_SEED"])


def _make_absolute(class_path: str, arguments: Any) -> None:
    """Make the paths among the arguments of a dataset class absolute; a name may also be that of a Hub's dataset."""
    for key in ("root", *_PATHS.get(class_path, ())):
        given = arguments.get(key)
        fits = {"name": os.path.exists, "urls": _is_path}.get(key, _always)
        if isinstance(given, list):
            arguments[key] = [_absolute(path, fits) for path in given]
        elif isinstance(given, str):
            arguments[key] = _absolute(given, fits)


def _always(_: str) -> bool:
    return True


def _is_path(url: str) -> bool:
    return ":" not in url  # http://…, file:…, pipe:…


def _absolute(path: str, fits: Callable[[str], bool] = _always) -> str:
    expanded = os.path.expanduser(path)
    return os.path.abspath(expanded) if fits(expanded) else path
