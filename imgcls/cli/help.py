"""The help texts, and the options for completion, from the schema: an argparse parser that needs no heavy import."""

import json
import textwrap
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from functools import partial
from typing import Any

import imgcls
from imgcls.cli.argv import CHECKPOINT_COMMANDS, COMMANDS, FLAGS
from imgcls.cli.help_pages import PAGES
from imgcls.cli.schema import Schema, branches, choices, inner, kinds, used_keys

AT_ONCE = {  # commands that need no parser
    "report": "write report.html of a run: how good it is, and where it fails",
    "init": "write a commented configuration for a folder of photos",
    "compare": "tell which runs are better by more than chance",
    "models": "list good pretrained models to start from",
    "schema": "print the JSON Schema of the configuration, for editors",
    "completion": "print the script that completes commands in bash, zsh or fish",
}
OWN_HELP = ("init", "compare", "report")
"""Commands of ``AT_ONCE`` with options and a help of their own."""
_USES = {  # command of AT_ONCE without a parser of its own -> how it is called, and what it prints
    "models": "usage: imgcls models\n\nPrint a table of good pretrained models: name, parameters, size, accuracy.\n"
    "To train one: imgcls fit photos/ --model.model_name NAME",
    "schema": "usage: imgcls schema > schema.json\n\nPrint the JSON Schema of the configuration. An editor checks and "
    "completes a\nYAML whose first line is: # yaml-language-server: $schema=schema.json",
    "completion": "usage: imgcls completion bash|zsh|fish\n\nPrint the script that completes commands, keys and values."
    "\nFor bash, add to ~/.bashrc: source <(imgcls completion bash)",
}
_METAVARS = {  # option -> what its value is, where its name does not say it
    "ckpt_path": "FILE.ckpt",
    "images": "PATH",
    "output": "FILE.csv",
    "top_k": "K",
    "embeddings": "FILE.npy",
    "risk": "SHARE",
    "coverage": "SHARE",
    "calibrate_on": "CSV",
    "json": "FILE.json",
    "html": "FILE.html",
    "allow": "FINDING",
    "target": "CLASS",
    "against": "CLASS",
}
_TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "list", "object": "dict"}
_MAIN = """usage: imgcls COMMAND [PHOTOS | FILE ...] [--section.key VALUE ...]

{about}

commands:
{commands}

  imgcls COMMAND --help   the main options of a command; --help all: all of them
  imgcls COMMAND --debug  an error with its traceback
  imgcls --version        the version

A first run, on a folder with one sub-folder of images per class:

  imgcls check photos/
  imgcls fit photos/
  imgcls predict runs/NAME/version_0 new_photos/"""


def main_help() -> str:
    """Return the help of the program."""
    commands = "\n".join(f"  {name:12s}{text}" for name, text in (COMMANDS | AT_ONCE).items())
    about = (imgcls.__doc__ or "").splitlines()[0].removeprefix("imgcls: ")
    return _MAIN.format(about=about, commands=commands)


def command_help(command: str) -> str:
    """Return the help of a command on one screen of 80 columns."""
    page, known = PAGES[command], used_keys(command)
    column = max(map(len, page.often)) + len("  --   ")
    parser = _parser(command, "examples:\n" + "\n".join(f"  {line}" for line in page.examples), column, 80)
    group = parser.add_argument_group("options")
    for key, schema in known.items():
        if "." not in key and not inner(schema) and key != "seed_everything":
            _add_key(group, key, schema, _with_default(schema["description"], schema), command)
    _add_general(group, command)
    often = parser.add_argument_group(f"often changed (all options: imgcls {command} --help all)")
    for key in filter(known.__contains__, page.often):
        often.add_argument(f"--{key}", metavar="", help=_with_default(page.often[key], known[key]))
    return parser.format_help().rstrip()


def help_of(command: str) -> str:
    """Return the help of a command, or that of the program if there is no such command."""
    return command_help(command) if command in COMMANDS else _USES.get(command) or main_help()


def full_help(command: str) -> str:
    """Return the help of all options of a command."""
    parser = _parser(
        command, "The arguments of a class: --KEY.help CLASS, as in --trainer.callbacks.help EarlyStopping"
    )
    add_keys(parser, command)
    return parser.format_help().rstrip()


def _parser(command: str, epilog: str, text_column: int = 24, width: int | None = None) -> ArgumentParser:
    return ArgumentParser(
        usage=f"imgcls {command} {PAGES[command].words} [--section.key VALUE ...]",
        description=textwrap.fill(PAGES[command].about, 80),
        epilog=epilog,
        formatter_class=partial(RawDescriptionHelpFormatter, max_help_position=text_column, width=width),
        add_help=False,
    )


def _with_default(text: str, schema: Schema) -> str:
    default = schema.get("default")
    return text if default in (None, False, {}) else f"{text} [{_shown(default)}]"


def add_keys(parser: ArgumentParser, command: str) -> dict[str, Action]:
    """Add the options of a command, those of each section in a group of their own; return dotted key -> option."""
    groups: dict[str, Any] = {"": parser.add_argument_group("options")}
    options = {"config": _add_general(groups[""], command)}
    for key, schema in used_keys(command).items():
        text = schema.get("description", "")
        if inner(schema):
            groups[key] = parser.add_argument_group(f"{key}: {text.partition('. ')[0].rstrip('.')}")
            options[key] = groups[key].add_argument(f"--{key}", metavar="FILE", help="Path to a file of this section.")
            continue
        text = f"{text} ({_type(schema)}default: {_shown(schema.get('default'))})"
        options[key] = _add_key(groups.get(key.rpartition(".")[0], groups[""]), key, schema, text, command)
    return options


def _add_general(group: Any, command: str) -> Action:
    """Add the options that every command has; return the one of configuration files."""
    of_run = "The config.yaml of the run, if its classes are your own."
    text = of_run if command in CHECKPOINT_COMMANDS else "Path to a configuration file (YAML)."
    config: Action = group.add_argument("-c", "--config", metavar="FILE", help=text)
    if command not in CHECKPOINT_COMMANDS:
        group.add_argument("--print_config", action="store_true", help="Print the configuration and exit.")
    group.add_argument("-h", "--help", action="help", help="Show the main options, or all: --help all.")
    return config


def _add_key(group: Any, key: str, schema: Schema, text: str, command: str) -> Action:
    values = [_shown(value) for value in choices(schema)] or None
    known = _METAVARS | ({} if command == "predict" else {"output": "FOLDER"})
    name = known.get(key) or (None if values else key.rpartition(".")[2].upper())
    metavar = "" if f"--{key}" in FLAGS else name
    action: Action = group.add_argument(f"--{key}", metavar=metavar, choices=values, help=text.replace("%", "%%"))
    return action


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
