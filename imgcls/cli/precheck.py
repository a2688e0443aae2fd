"""Answers and refusals before any heavy import: help, version, unknown commands, sections and keys.

What it knows of the parser is in answers.json; ``python -m imgcls.cli.make_schema`` writes it from the parser itself.
"""

import json
import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

import imgcls
from imgcls.cli.argv import COMMANDS, LISTS, compose_yaml, config_files, find_fault, split_options
from imgcls.errors import ConfigError, did_you_mean, join_keys, known_names

_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"

Schema = dict[str, Any] | None

_WITH_CLASS = ("model", "data")
_OF_A_CLASS: dict[str, Any] = dict.fromkeys(("class_path", "init_args", "dict_kwargs"))
_VALUES = {"--config": "FILE.yaml", "-c": "FILE.yaml", "--ckpt_path": "FILE.ckpt", "--images": "PATH"}
_VALUES |= {"--allow": "leakage", "--json": "FILE.json", "--html": "FILE.html", "--tta": "hflip"}
_SUFFIXES = {".yaml": "--config", ".yml": "--config", ".ckpt": "--ckpt_path"}
_FOLDERS = {
    "fit": "--data.dataset_classes.train",
    "tune": "--data.dataset_classes.train",
    "test": "--data.dataset_classes.test",
    "predict": "--images",
    "check": "--images",
}
_SPLITS = ("train", "validation", "test", "predict")
_SHOWN = 8  # keys that a message names
_OF_EVERY_COMMAND = ("config", "help", "print_config")
_OLD_SPELLINGS = {"--config": "fit", "-c": "fit", "--test": "test", "--val": "validate", "--predict": "predict"}


def answer(arguments: list[str]) -> str | None:
    """Return the text that a command line asks for (help or version), None if it asks for something else."""
    if arguments[:1] == ["--version"]:
        return f"imgcls {imgcls.__version__}"
    if not arguments or arguments[0] in {"-h", "--help"}:
        return _main_help()
    if arguments[0] in COMMANDS and any(argument in {"-h", "--help"} for argument in arguments[1:]):
        help_text: str = _answers()["help"][arguments[0]]
        return help_text
    return None


def check(arguments: list[str]) -> None:
    """Refuse an unknown command, section or key, and a configuration file that cannot be read.

    Raises:
        ConfigError: Names what was found, and what is near it.
    """
    command = arguments[0]
    if command not in COMMANDS:
        raise ConfigError(_no_command(arguments))
    options = split_options(arguments)
    for name, values in options:
        _check_values(arguments, name, values)
    configs = [(path, compose_yaml(path)) for path in config_files(arguments)]
    answers = _answers()
    sections = answers["sections"] | dict.fromkeys(answers["options"][command])
    classes = [*(named for _, node in configs for named in _classes_in(node)), *_classes_of(options)]
    own = [section for section, class_path in classes if class_path not in answers["classes"]]
    checker = _Checker(sections | dict.fromkeys(own), answers["classes"])
    for path, node in configs:
        checker.check_node(node, checker.sections, path, "")
    for name, values in options[1:]:
        if name.startswith("--"):
            checker.check_option(name, values)


def _check_values(arguments: list[str], name: str, values: list[str]) -> None:
    """Refuse an option without the value that it needs, and a value that belongs to no option."""
    if name in _VALUES and not any(values):
        raise ConfigError(f"{name} needs a value; type {name} {_VALUES[name]}")
    taken = 0 if name == arguments[0] else len(values) if name in LISTS else 1
    bare = values[taken:]
    if not bare:
        return
    meant = {value: _option_for(arguments[0], value) for value in bare}
    for value, option in meant.items():
        if option is None:
            raise ConfigError(
                f"{value!r} belongs to no option; type --section.key VALUE, a value with spaces in quotes"
            )
    place = arguments.index(bare[0])
    mended = [str(word) for value in bare for word in (meant[value], value)]
    line = shlex.join([*arguments[:place], *mended, *arguments[place + len(bare) :]])
    raise ConfigError(f"{bare[0]!r} stands without {meant[bare[0]]}; type: imgcls {line}")


def _option_for(command: str, value: str) -> str | None:
    """Return the option that a value without one was probably meant for."""
    suffix = Path(value).suffix
    return _SUFFIXES[suffix] if suffix in _SUFFIXES else _FOLDERS.get(command) if os.path.exists(value) else None


def _classes_in(config: yaml.MappingNode) -> list[tuple[str, str]]:
    """The classes that a configuration names for model and data."""
    sections = [(key.value, value) for key, value in _pairs(config) if key.value in _WITH_CLASS]
    return [(section, path) for section, value in sections if (path := _class_path(value))]


def _classes_of(options: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    """The classes that options name for model and data."""
    given = [(name[2:].removesuffix(".class_path"), values[0]) for name, values in options if values]
    sections = [(section, _compose(text)) for section, text in given if section in _WITH_CLASS]
    return [(section, path) for section, value in sections if (path := _class_path(value))]


def _class_path(section: yaml.Node | None) -> str | None:
    if isinstance(section, yaml.MappingNode):
        section = next((value for key, value in _pairs(section) if key.value == "class_path"), None)
    return str(section.value) if isinstance(section, yaml.ScalarNode) else None


def _compose(text: str) -> yaml.Node | None:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # a plain text, such as the pattern of a file name
        return None
    return None if node is None or find_fault(node) else node


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """The keys and values of a mapping, with those that ``<<: *anchor`` merges into it; its own keys come before."""
    pairs = [(key, value) for key, value in node.value if key.tag != _MERGE]
    for merged in (value for key, value in node.value if key.tag == _MERGE):
        for part in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            names = {key.value for key, _ in pairs}
            pairs += (
                [pair for pair in _pairs(part) if pair[0].value not in names]
                if isinstance(part, yaml.MappingNode)
                else []
            )
    return pairs


class _Checker:
    """Compares configuration files and options with the keys that the parser takes."""

    def __init__(self, sections: dict[str, Any], classes: dict[str, dict[str, Any]]) -> None:
        self.sections = sections
        self.classes = classes

    def check_node(self, node: yaml.Node | None, schema: Schema, source: str, where: str) -> None:
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.check_node(item, None, source, f"{where}[{number}]")
        if not isinstance(node, yaml.MappingNode):
            return
        pairs = _pairs(node)
        given = {key.value: value for key, value in pairs}
        if schema and "init_args" in schema and "init_args" in given:
            flat = next((key for key in given if key in (schema["init_args"] or {})), None)
            if flat:
                raise ConfigError(f"{source}: {join_keys(where, flat)!r} stands beside init_args; put it into them")
        schema = self._refine(schema, given)
        seen: set[str] = set()
        for key, value in pairs:
            place = source if source.startswith("--") else f"{source}:{key.start_mark.line + 1}"
            name = join_keys(where, key.value)
            if key.value in seen:
                raise ConfigError(f"{place}: the key {name!r} is given twice")
            seen.add(key.value)
            if schema and key.value not in schema:
                raise ConfigError(f"{place}: unknown key {name!r}{known_names(key.value, schema)}")
            inner = schema.get(key.value) if schema else None
            _refuse_no_section(value, inner, f"{place}: {name!r}")
            _refuse_table(value, name)
            self.check_node(value, inner, source, name)

    def check_option(self, option: str, values: list[str]) -> None:
        name = option[2:].removesuffix("+").removesuffix(".help")
        schema: Schema = self.sections | dict.fromkeys(_OF_EVERY_COMMAND)
        before = ""
        for key in name.split("."):
            schema = self._refine(schema, {})
            if schema and key not in schema:
                raise ConfigError(f"unknown option --{join_keys(before, key)}{known_names(key, schema, before)}")
            schema = schema[key] if schema else None
            before = join_keys(before, key)
        for value in values:
            node = _compose(value)
            _refuse_no_section(node, schema, f"{option}: {name!r}")
            _refuse_table(node, name)
            self.check_node(node, schema, option, name)

    def _refine(self, schema: Schema, given: dict[str, yaml.Node]) -> Schema:
        """Take the arguments of the class that is named; the default class's may also stand without init_args."""
        named = given.get("class_path")
        if isinstance(named, yaml.ScalarNode):
            return _OF_A_CLASS | {"init_args": self.classes.get(named.value)}
        if schema and "class_path" in schema:
            return schema | (schema["init_args"] or {})
        return schema


def _refuse_table(node: yaml.Node | None, name: str) -> None:
    """Refuse a table in place of a folder; the parser would take its content for the dataset's configuration."""
    split = name.replace("data.init_args.", "data.").removeprefix("data.dataset_classes.")
    if (
        split not in _SPLITS
        or not isinstance(node, yaml.ScalarNode)
        or not node.value.endswith((".csv", ".tsv", ".txt"))
    ):
        return
    key = f"--data.dataset_classes.{split}"
    raise ConfigError(
        f"{name}: {node.value!r} is no folder; of a table, type {key}.class_path imgcls.CsvImageDataset "
        f"{key}.init_args.csv {shlex.quote(node.value)}"
    )


def _refuse_no_section(node: yaml.Node | None, schema: Schema, what: str) -> None:
    """Refuse a section without a key, such as one whose keys are all commented out, and a value in place of keys."""
    if not schema or not isinstance(node, yaml.ScalarNode):
        return
    if node.tag == _NULL:
        raise ConfigError(f"{what} is empty; leave it out, or give it a key")
    is_file = node.value.endswith((".yaml", ".yml", ".json")) or os.sep in node.value  # the parser reads sections there
    if "class_path" not in schema and not is_file:  # which may be a class's name
        raise ConfigError(f"{what} is {node.value!r}; it is a section with keys: {', '.join(list(schema)[:_SHOWN])}")


def _no_command(arguments: list[str]) -> str:
    first = arguments[0]
    if first.partition("=")[0] in _OLD_SPELLINGS:
        new = next((_OLD_SPELLINGS[a] for a in arguments if a in {"--test", "--val", "--predict"}), "fit")
        rest = [argument for argument in arguments if argument not in {"--test", "--val", "--predict"}]
        return f"a command comes first; type: imgcls {shlex.join([new, *rest])}"
    return f"no command {first!r}{did_you_mean(first, COMMANDS)}; there are {', '.join(COMMANDS)}"


def _main_help() -> str:
    commands = "\n".join(f"  {name:10s}{text}" for name, text in COMMANDS.items())
    return f"""usage: imgcls COMMAND [--config FILE.yaml ...] [--section.key VALUE ...]

{imgcls.__doc__.splitlines()[0].removeprefix("imgcls: ") if imgcls.__doc__ else ""}

commands:
{commands}

  imgcls COMMAND --help   the options of a command
  imgcls COMMAND --debug  an error with its traceback
  imgcls --version        the version

A first run: imgcls fit --data.dataset_classes.train FOLDER_OF_CLASS_FOLDERS"""


def _answers() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files("imgcls.cli").joinpath("answers.json").read_text(encoding="utf-8"))
    return content
