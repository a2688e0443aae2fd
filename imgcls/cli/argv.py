"""Divide a command line into command and options, and read YAML files, without heavy imports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from imgcls.errors import ConfigError

COMMANDS = {
    "fit": "train; ends with the best checkpoint evaluated on validation, and on test where it is given",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data",
    "predict": "write a CSV with one row for each image",
    "tune": "search the best values of any keys with Optuna; each trial is a fit",
    "check": "check the data before training: unreadable, duplicated and leaking images, classes, sizes",
}
EVALUATIONS = ("validate", "test", "predict")
IMAGES = "--images"
LISTS = (IMAGES, "--allow")  # options that take several values
_CONFIG = ("--config", "-c")
_SECTIONS = ("model.optimizer_config", "model.scheduler_config", "model.loss_config", "model.mix_config")
# jsonargparse 4.53 reads a null in a dataclass among the arguments of a class as the text None
_WITH_NULLS = tuple(f"{name}." for name in ("data.augmentations", *_SECTIONS))
_WITH_ITEMS = ("trainer.callbacks.", "trainer.logger.", "trainer.plugins.", "data.augmentations.")  # lists of classes
_DATASET = re.compile(r"(data\.dataset_classes\.\w+)\.(?:init_args\.)?(?!(?:class_path|init_args)$)(.+)")
_DEEPEST = 50  # levels of a configuration, within Python's limit of recursion
_MOST_VALUES = 1_000_000
_TOO_DEEP = f"holds more than {_DEEPEST} levels, one within the other"

Option = tuple[str, list[str]]


def split_options(arguments: list[str]) -> list[Option]:
    """Divide a command line into the command and its options, each with the values that follow it."""
    found: list[Option] = []
    for argument in arguments:
        name, given, value = argument.partition("=")
        if not found or name in {"-c", "-h"} or (name.startswith("--") and len(name) > 2):
            found.append((name, [value] if given else []))
        else:
            found[-1][1].append(argument)
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
        self.images = lists.pop(IMAGES) if self.command in {"predict", "check"} and not self.asks_for_help else []
        self.options: list[Option] = [("--config", values) for name, values in given if name in _CONFIG]
        self.items: dict[str, str] = {}
        self.classes = {_short(name).removesuffix(".class_path") for name in self.names}
        for name, values in given:
            if name not in (*_CONFIG, *LISTS):
                self._add(name, values)
        self.options += [(name, [json.dumps(values, ensure_ascii=False)]) for name, values in lists.items() if values]

    def _add(self, name: str, values: list[str]) -> None:
        key = _short(name)
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


def _short(name: str) -> str:
    """Return the key of an option, without the ``init_args`` that may be left out: ``data.batch_size``."""
    return re.sub(r"^(model|data)\.init_args\.", r"\1.", name[2:])


def _is_item(key: str) -> bool:
    # elsewhere a number may be the key of a mapping, as in model.unfreeze.2
    return key.startswith(_WITH_ITEMS) and any(part.isdecimal() for part in key.split("."))


def compose_yaml(path: str) -> yaml.MappingNode:
    """Read a configuration file into YAML nodes, which know their lines.

    Raises:
        ConfigError: If it is missing, or is not a YAML mapping; names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: cannot be read: {error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: has no sections; a configuration has sections such as 'data:' and 'model:'")
    if fault := find_fault(node):
        raise ConfigError(f"{path}:{fault[0].start_mark.line + 1}: {fault[1]}")
    return node


def find_fault(
    node: yaml.Node, above: tuple[yaml.Node, ...] = (), left: Iterator[int] | None = None
) -> tuple[yaml.Node, str] | None:
    """Return the first node that is YAML and yet no configuration, with what is wrong; None if there is none.

    Args:
        node: The node, and what it holds.
        above: The nodes that hold it.
        left: Runs out where a few lines of aliases stand for more values than a machine can hold.
    """
    left = iter(range(_MOST_VALUES)) if left is None else left
    if node in above:
        return node, "holds itself, by the alias of its own anchor; write out what is meant"
    if len(above) == _DEEPEST:
        return node, _TOO_DEEP
    if next(left, None) is None:
        return (*above, node)[1], f"expands to more than {_MOST_VALUES} values"  # the value of a section
    inner = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if not isinstance(key, yaml.ScalarNode):
            return key, "a key is a text, and no list or mapping; put quotes around a text with braces"
        inner.append(value)
    return next((fault for item in inner if (fault := find_fault(item, (*above, node), left))), None)
