"""Answers and refusals before any heavy import: help, version, unknown commands, sections and keys.

What it knows of the parser stands in answers.json, written by ``python -m imgcls.answers`` from the parser itself.
"""

import json
from importlib.resources import files
from typing import Any

import yaml

import imgcls
from imgcls.arguments import COMMANDS, compose_yaml, config_files
from imgcls.errors import ConfigError, did_you_mean

Schema = dict[str, Any] | None

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
    answers = _answers()
    checker = _Checker(answers["sections"] | dict.fromkeys(answers["options"][command]), answers["classes"])
    for path in config_files(arguments):
        checker.check_node(compose_yaml(path), checker.sections, path, "")
    for argument in arguments[1:]:
        if argument.startswith("--") and len(argument) > 2:
            checker.check_option(argument)


class _Checker:
    """Compares configuration files and options with the keys that the parser takes."""

    def __init__(self, sections: dict[str, Any], classes: dict[str, dict[str, Any]]) -> None:
        self.sections = sections
        self.classes = classes

    def check_node(self, node: yaml.Node, schema: Schema, path: str, where: str) -> None:
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.check_node(item, None, path, f"{where}[{number}]")
        if not isinstance(node, yaml.MappingNode):
            return
        given = {key.value: value for key, value in node.value}
        schema = self._refine(schema, given)
        seen: set[str] = set()
        for key, value in node.value:
            place = f"{path}:{key.start_mark.line + 1}"
            if key.value in seen:
                raise ConfigError(f"{place}: the key {_join(where, key.value)!r} is given twice")
            seen.add(key.value)
            if schema and key.value not in schema:
                raise ConfigError(f"{place}: unknown key {_join(where, key.value)!r}{did_you_mean(key.value, schema)}")
            self.check_node(value, schema.get(key.value) if schema else None, path, _join(where, key.value))

    def check_option(self, option: str) -> None:
        keys = option[2:].partition("=")[0].removesuffix("+").removesuffix(".help").split(".")
        schema: Schema = self.sections | dict.fromkeys(_OF_EVERY_COMMAND)
        for number, key in enumerate(keys):
            schema = self._refine(schema, {})
            if not schema:
                return
            if key not in schema:
                before = ".".join(keys[:number])
                raise ConfigError(f"unknown option --{_join(before, key)}{did_you_mean(key, schema, before)}")
            schema = schema[key]

    def _refine(self, schema: Schema, given: dict[str, yaml.Node]) -> Schema:
        """Take the arguments of the class that is named; the default class's may also stand without init_args."""
        named = given.get("class_path")
        class_path = named.value if isinstance(named, yaml.ScalarNode) else None
        if class_path is not None:
            arguments = self.classes.get(class_path)
            return {"class_path": None, "init_args": arguments, "dict_kwargs": None} if arguments else None
        if schema and "class_path" in schema:
            return schema | (schema["init_args"] or {})
        return schema


def _no_command(arguments: list[str]) -> str:
    first = arguments[0]
    if first.partition("=")[0] in _OLD_SPELLINGS:
        new = next((_OLD_SPELLINGS[a] for a in arguments if a in {"--test", "--val", "--predict"}), "fit")
        rest = [argument for argument in arguments if argument not in {"--test", "--val", "--predict"}]
        return f"a command comes first; type: imgcls {' '.join([new, *rest])}"
    return f"no command {first!r}{did_you_mean(first, COMMANDS)}; there are {', '.join(COMMANDS)}"


def _join(before: str, key: str) -> str:
    return f"{before}.{key}" if before else key


def _main_help() -> str:
    commands = "\n".join(f"  {name:10s}{text}" for name, text in COMMANDS.items())
    return f"""usage: imgcls COMMAND [--config FILE.yaml ...] [--section.key VALUE ...]

{imgcls.__doc__.splitlines()[0].removeprefix("imgcls: ") if imgcls.__doc__ else ""}

commands:
{commands}

  imgcls COMMAND --help   the options of a command
  imgcls --version        the version

A first run: imgcls fit --data.dataset_classes.train FOLDER_OF_CLASS_FOLDERS"""


def _answers() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files("imgcls").joinpath("answers.json").read_text(encoding="utf-8"))
    return content
