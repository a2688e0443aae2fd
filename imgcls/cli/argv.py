"""The command line and the YAML files, read without the parser: what answers in an instant needs no heavy import."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from imgcls.errors import ConfigError

COMMANDS = {
    "fit": "train; ends with the best checkpoint evaluated on validation, and on test where it is given",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data",
    "predict": "write a CSV with one row for each image",
    "tune": "search the best values of any keys with Optuna; each trial is a fit",
    "check": "look at the data before training: unreadable, duplicated and leaking images, classes, sizes",
}
EVALUATIONS = ("validate", "test", "predict")
WITH_IMAGES = ("predict", "check")
_WITH_ITEMS = (  # what holds lists of classes
    "--trainer.callbacks.",
    "--trainer.logger.",
    "--trainer.plugins.",
    "--data.augmentations.",
    "--data.init_args.augmentations.",
)
_WITH_NULLS = tuple(  # dataclasses among the arguments of a class: the parser takes a null there for the text None
    f"--{section}"
    for name in ("data.augmentations", *(f"model.{kind}_config" for kind in ("optimizer", "scheduler", "loss", "mix")))
    for section in (f"{name}.", f"{name.replace('.', '.init_args.')}.")
)
_CONFIG = ("--config", "-c")
_DEEPEST = 50  # levels of a configuration, within Python's limit of recursion
_MOST_VALUES = 1_000_000
_TOO_DEEP = f"holds more than {_DEEPEST} levels, one within the other"
IMAGES = "--images"
LISTS = (IMAGES, "--allow")  # options that take several values


def split_options(arguments: list[str]) -> list[tuple[str, list[str]]]:
    """Divide a command line into the command and its options, each with the values that follow it."""
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        name, given, value = argument.partition("=")
        if not found or _begins_option(argument):
            found.append((name, [value] if given else []))
        else:
            found[-1][1].append(argument)
    return found


def _begins_option(argument: str) -> bool:
    name = argument.partition("=")[0]
    return name in {"-c", "-h"} or (name.startswith("--") and len(name) > 2)


def option_values(arguments: list[str], *names: str) -> list[str]:
    """Return the values of an option, given as ``--name value`` or ``--name=value``, in order."""
    return [values[0] for name, values in split_options(arguments) if name in names and values]


def config_files(arguments: list[str]) -> list[str]:
    """Return the files given with --config, in order."""
    return option_values(arguments, *_CONFIG)


def checkpoint_argument(arguments: list[str]) -> str | None:
    """Return the checkpoint that the command line names, else the last configuration file that names one."""
    return _given(arguments, "ckpt_path")


def output_dir_argument(arguments: list[str]) -> str | None:
    """Return the folder of all runs that the command line names, else the last configuration file that names one."""
    return _given(arguments, "experiment.output_dir")


class GivenKeys:
    """Which keys a command line, and the configuration files that it names, give a value.

    Args:
        arguments: The command line.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._files = [*_mappings(arguments), *_typed_mappings(arguments)]

    def __contains__(self, key: object) -> bool:
        """Whether a key is among them, with its ``init_args`` or without."""
        spellings = self._spellings(str(key))
        return any(_last(self._files, self._arguments, spelling) is not None for spelling in spellings)

    def names(self, key: str) -> bool:
        """Whether they name a key, be it to give it a null."""
        return any(
            _values_at(self._files, spelling) or option_values(self._arguments, f"--{spelling}")
            for spelling in self._spellings(key)
        )

    def within(self, key: str) -> set[str]:
        """Return the names that they give a value within a key that stands for a class, ``init_args`` left out."""
        found: set[str] = set()
        for spelling in self._spellings(key):
            for content in filter(lambda item: isinstance(item, dict), _values_at(self._files, spelling)):
                arguments = content.get("init_args")
                found |= content.keys() | (arguments.keys() if isinstance(arguments, dict) else set())
            start = f"--{spelling}."
            typed = [name.removeprefix(start) for name, _ in split_options(self._arguments) if name.startswith(start)]
            found |= {name.removeprefix("init_args.").partition(".")[0] for name in typed}
        return found - {"class_path", "init_args"}

    @staticmethod
    def _spellings(key: str) -> set[str]:
        return {key, key.replace(".init_args.", ".", 1)}


def _given(arguments: list[str], key: str) -> str | None:
    return _last(_mappings(arguments), arguments, key)


def _mappings(arguments: list[str]) -> list[dict[str, Any]]:
    return [_mapping(path) for path in config_files(arguments)]


def _typed_mappings(arguments: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the options whose value is a mapping, as a file would have them; an item of a list is none of a file."""
    for name, values in split_options(arguments):
        try:
            content = yaml.safe_load(values[0]) if name.startswith("--") and values and not _is_item(name) else None
        except yaml.YAMLError:  # a plain text
            continue
        if isinstance(content, dict):
            for part in reversed(name[2:].split(".")):
                content = {part: content}
            yield content


def _last(files: list[dict[str, Any]], arguments: list[str], key: str) -> str | None:
    last = [*_values_at(files, key), *option_values(arguments, f"--{key}")][-1:]
    return None if last in ([], [None], ["null"], ["None"]) else str(last[0])


def _values_at(files: list[dict[str, Any]], key: str) -> list[Any]:
    """Return the values at a dotted key of those mappings that have it."""
    named: list[Any] = list(files)
    for part in key.split("."):
        named = [content[part] for content in named if isinstance(content, dict) and part in content]
    return named


def files_first(arguments: list[str]) -> list[str]:
    """Move the configuration files before the other options, for the parser lets the later one win."""
    files: list[str] = []
    typed: list[str] = []
    is_value = False
    for argument in arguments[1:]:
        name, given, _ = argument.partition("=")
        (files if is_value or name in _CONFIG else typed).append(argument)
        is_value = name in _CONFIG and not given and not is_value
    return [*arguments[:1], *files, *typed]


def asks_for_help(arguments: list[str]) -> bool:
    """Whether a command line asks for help or for its configuration, and runs nothing."""
    return any(
        argument in {"-h", "--help"}
        or argument.endswith(".help")
        or ".help=" in argument
        or argument.startswith("--print_config")
        for argument in arguments
    )


def take_list(option: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into what is not ``--option A B … --option=C``, and the values of that, in order."""
    rest: list[str] = []
    values: list[str] = []
    taking = False
    for argument in arguments:
        if argument == option or argument.startswith(f"{option}="):
            taking = argument == option
            values += [] if taking else [argument.removeprefix(f"{option}=")]
        elif taking and not _begins_option(argument):
            values.append(argument)
        else:
            taking = False
            rest.append(argument)
    return rest, values


def join_list(option: str, arguments: list[str]) -> list[str]:
    """Rewrite ``--option A B … --option C`` into the one form that the parser reads, a JSON list."""
    rest, values = take_list(option, arguments)
    return [*rest, f"{option}={json.dumps(values, ensure_ascii=False)}"] if values else arguments


def split_items(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Divide a command line into what the parser reads, and what it cannot, as dotted key -> text.

    That is an item of a list, whose key has a place in it, as ``--trainer.callbacks.0.init_args.patience 3``; and a
    null within a section such as ``model.optimizer_config``, unless a later option gives its key a value.

    Raises:
        ConfigError: If an item has no value.
    """
    rest: list[str] = []
    items: dict[str, str] = {}
    waiting = arguments[::-1]
    while waiting:
        argument = waiting.pop()
        name, given, value = argument.partition("=")
        follows = not given and waiting[-1:] != [] and not waiting[-1].startswith("--")
        text = value if given else waiting[-1] if follows else None
        if _is_item(name) and text is None:
            raise ConfigError(f"{name} needs a value")
        key = re.sub(r"^(model|data)\.init_args\.", r"\1.", name[2:])
        items.pop(key, None)
        if text is None or not (_is_item(name) or (text == "null" and name.startswith(_WITH_NULLS))):
            rest.append(argument)
            continue
        items[key] = text
        if follows:
            waiting.pop()
    return rest, items


def _is_item(name: str) -> bool:
    # elsewhere a number may be the key of a mapping, as in --model.unfreeze.2
    return name.startswith(_WITH_ITEMS) and any(part.isdecimal() for part in name.split("."))


def compose_yaml(path: str) -> yaml.MappingNode:
    """Read a configuration file into nodes, which know their lines.

    Raises:
        ConfigError: If it is missing, no YAML or no mapping; names file and line.
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
        raise ConfigError(f"{path}: holds no sections; a configuration has sections such as 'data:' and 'model:'")
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
        return (*above, node)[1], f"stands for more than {_MOST_VALUES} values"  # the value of a section
    inner = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if not isinstance(key, yaml.ScalarNode):
            return key, "a key is a text, and no list or mapping; put quotes around a text with braces"
        inner.append(value)
    return next((fault for item in inner if (fault := find_fault(item, (*above, node), left))), None)


def _mapping(path: str) -> dict[str, Any]:
    compose_yaml(path)
    content: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return content
