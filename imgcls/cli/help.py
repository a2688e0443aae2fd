"""The help texts, and the options for completion, from the schema: an argparse parser that needs no heavy import."""

import json
from argparse import Action, ArgumentParser
from typing import Any

import imgcls
from imgcls.cli.argv import COMMANDS, EVALUATIONS
from imgcls.cli.schema import Schema, branches, choices, inner, keys, kinds

AT_ONCE = {  # commands that need no parser
    "init": "write a commented configuration fitted to a folder of photos and to this machine",
    "models": "list good pretrained models to start from",
    "schema": "print the JSON Schema of the configuration, for editors",
    "completion": "print the script that completes commands and keys in bash, zsh or fish",
}
_TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "list", "object": "dict"}
_MAIN = """usage: imgcls COMMAND [--config FILE.yaml ...] [--section.key VALUE ...]

{about}

commands:
{commands}

  imgcls COMMAND --help   the options of a command
  imgcls COMMAND --debug  an error with its traceback
  imgcls --version        the version

A first run: imgcls fit --data.dataset_classes.train FOLDER_OF_CLASS_FOLDERS"""


def main_help() -> str:
    """Return the help of the program."""
    commands = "\n".join(f"  {name:12s}{text}" for name, text in (COMMANDS | AT_ONCE).items())
    about = (imgcls.__doc__ or "").splitlines()[0].removeprefix("imgcls: ")
    return _MAIN.format(about=about, commands=commands)


def command_help(command: str) -> str:
    """Return the help of a command."""
    parser = ArgumentParser(
        usage=f"imgcls {command} [--config FILE.yaml ...] [--section.key VALUE ...]",
        description=f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}.",
        epilog="The arguments of a class: --KEY.help CLASS, as in --trainer.callbacks.help EarlyStopping",
    )
    add_keys(parser, command)
    return parser.format_help().rstrip()


def add_keys(parser: ArgumentParser, command: str) -> dict[str, Action]:
    """Add the options of a command, those of each section in a group of their own; return dotted key -> option."""
    config = parser.add_argument("-c", "--config", metavar="FILE.yaml", help="Path to a configuration file.")
    parser.add_argument("--print_config", action="store_true", help="Print the configuration and exit.")
    groups: dict[str, Any] = {"": parser}
    options = {"config": config}
    for key, schema in keys(command).items():
        # the model is the checkpoint's
        if command in EVALUATIONS and key.startswith("model") and key != "model.threshold":
            continue
        description = schema.get("description", "").replace("%", "%%")
        if inner(schema):
            groups[key] = parser.add_argument_group(description.rstrip("."))
            options[key] = groups[key].add_argument(f"--{key}", metavar="FILE", help="Path to a file of this section.")
            continue
        section, _, name = key.rpartition(".")
        values = [_shown(value) for value in choices(schema)] or None
        text = f"{description} ({_type(schema)}default: {_shown(schema.get('default'))})"
        options[key] = groups.get(section, parser).add_argument(
            f"--{key}", metavar=None if values else name.upper(), choices=values, help=text
        )
    return options


def _type(schema: Schema) -> str:
    """Return what a value may be: types, constants, and the classes that are described."""
    found: list[str] = []
    for branch in branches(schema) if not choices(schema) else []:
        found += [_shown(value) for value in branch.get("enum", [])] + [
            _TYPES.get(kind, kind) for kind in kinds(branch)
        ]
        found += branch.get("properties", {}).get("class_path", {}).get("examples", [])
    return f"type: {' | '.join(found)}, " if found else ""


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
