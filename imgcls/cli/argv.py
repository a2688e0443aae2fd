"""Divide a command line into command and options, without heavy imports."""

import json
import math
import re

from imgcls.errors import ConfigError

COMMANDS = {
    "fit": "train a classifier, then evaluate its best epoch",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on test data",
    "predict": "write a CSV with a prediction for each image",
    "tune": "search the best values of any keys with Optuna",
    "check": "find unreadable, duplicated and leaking images before training",
    "export": "write a trained model for transformers, ONNX or torch",
    "explain": "draw which parts of an image a prediction depends on",
}
EVALUATIONS = ("validate", "test", "predict")
CHECKPOINT_COMMANDS = ("export", "explain")
TRAINER_COMMANDS = tuple(name for name in COMMANDS if name not in CHECKPOINT_COMMANDS)  # which Lightning's parser reads
OF_TRAINED = (*EVALUATIONS, *CHECKPOINT_COMMANDS)  # commands that need the checkpoint of a trained model
IMAGES = "--images"
CKPT_PATH = "--ckpt_path"
LISTS = (IMAGES, "--allow")  # options that take several values
_WITH_IMAGES = {"predict", "check", *CHECKPOINT_COMMANDS}
# options that need no value
FLAGS = ("--overwrite", "--resume", "--raw", "--batched", "--quantize", "--from_network_input", "--print_config")
_CONFIG = ("--config", "-c")
_SECTIONS = ("model.optimizer_config", "model.scheduler_config", "model.loss_config", "model.mix_config")
# jsonargparse 4.53 reads a null in a dataclass among the arguments of a class as the text None
_WITH_NULLS = tuple(f"{name}." for name in ("data.augmentations", *_SECTIONS))
_WITH_ITEMS = ("trainer.callbacks.", "trainer.logger.", "trainer.plugins.", "data.augmentations.")  # lists of classes
_DATASET = re.compile(r"(data\.dataset_classes\.\w+)\.(?:init_args\.)?(?!(?:class_path|init_args)$)(.+)")

Option = tuple[str, list[str]]


def split_options(arguments: list[str]) -> list[Option]:
    """Divide a command line into the command and its options, each with its values; other words have no name."""
    found: list[Option] = [(arguments[0], [])]
    free = 0.0  # values that the last option can still take
    for word in arguments[1:]:
        name, joined, value = word.partition("=")
        if re.match(r"--.|-[A-Za-z]$", name):
            found.append((name, [value] if joined else []))
            free = math.inf if name in LISTS else 0 if joined or name in FLAGS else 1
        elif free or (found[-1][0] in FLAGS and word in {"true", "false"}):
            found[-1][1].append(word)
            free = max(free - 1, 0)
        else:
            found.append(("", [word]))
    return found


def join_options(options: list[Option]) -> list[str]:
    """Return the command line of a command and its options, each name followed by its values; the reverse of above."""
    found: list[str] = []
    for name, values in options:
        joined = len(values) == 1 and (name in FLAGS or values[0][:1] in {"-", ""})  # would else be read apart
        found += [f"{name}={values[0]}"] if joined and name else [*filter(None, [name]), *values]
    return found


def config_files(arguments: list[str]) -> list[str]:
    """Return the files given with --config, in order."""
    return [values[0] for name, values in split_options(arguments) if name in _CONFIG and values]


class CommandLine:
    """A command line, divided into what the parser can read and what it cannot.

    Args:
        arguments: The command line after the program's name.

    Attributes:
        command: The command.
        names: The names of all options, in order.
        classes: The keys of options, without ``class_path``: those whose class is given are among them.
        options: What the parser reads; configuration files come first, since a later option wins.
        images: The values of ``--images``: the parser refuses names that are not UTF-8.
        items: Dotted key -> text: an item of a list, as in ``--trainer.callbacks.0.init_args.patience 3``; a null
            within a dataclass; in an evaluation, an argument of a dataset whose class is the checkpoint's.
        asks_for_help: Whether help or the configuration is to be printed, and nothing runs.

    Raises:
        ConfigError: If an item has no value.
    """

    def __init__(self, arguments: list[str]) -> None:
        (self.command, _), *given = split_options(arguments)
        self.names = [name for name, _ in given]
        self.asks_for_help = any(
            name in {"-h", "--help"} or name.endswith(".help") or name.startswith("--print_config")
            for name in self.names
        )
        lists = {name: [value for other, values in given if other == name for value in values] for name in LISTS}
        has_images = self.command in _WITH_IMAGES and not self.asks_for_help
        self.images = lists.pop(IMAGES) if has_images else []
        self.options: list[Option] = [("--config", values) for name, values in given if name in _CONFIG]
        self.items: dict[str, str] = {}
        self.classes = {short_key(name).removesuffix(".class_path") for name in self.names}
        for name, values in given:
            if name not in (*_CONFIG, *LISTS):
                self._add(name, values)
        self.options += [(name, [json.dumps(values, ensure_ascii=False)]) for name, values in lists.items() if values]

    def _add(self, name: str, values: list[str]) -> None:
        key = short_key(name)
        dataset = _DATASET.match(key) if self.command in EVALUATIONS else None
        of_checkpoint = dataset is not None and dataset[1] not in self.classes
        if dataset and of_checkpoint:
            key = f"{dataset[1]}.init_args.{dataset[2]}"
        self.items.pop(key, None)  # the later option wins
        if not (of_checkpoint or _is_item(key) or (values == ["null"] and key.startswith(_WITH_NULLS))):
            self.options.append((name, values))
        elif values:
            self.items[key] = values[0]
        else:
            raise ConfigError(f"{name} needs a value")

    @property
    def arguments(self) -> list[str]:
        """The command and the options, as the parser reads them."""
        found = [self.command]
        for name, values in self.options:
            found += ["=".join([name, *values[:1]]), *values[1:]]
        return found


def short_key(name: str) -> str:
    """Return the key of an option, without the ``init_args`` that may be left out: ``data.batch_size``."""
    return re.sub(r"^(model|data)\.init_args\.", r"\1.", name[2:])


def _is_item(key: str) -> bool:
    # elsewhere a number may be the key of a mapping, as in model.unfreeze.2
    return key.startswith(_WITH_ITEMS) and any(part.isdecimal() for part in key.split("."))
