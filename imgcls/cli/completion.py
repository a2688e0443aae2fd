"""Completion of commands, keys, values, configuration files and checkpoints in bash, zsh and fish, by argcomplete."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter
from argcomplete.shell_integration import shellcode

from imgcls.cli.argv import COMMANDS
from imgcls.cli.help import AT_ONCE, OWN_HELP, add_keys
from imgcls.cli.models import names
from imgcls.cli.schema import keys
from imgcls.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
_CHECKPOINTS = ("*/version_*/checkpoints/*.ckpt", "*/tune/best.ckpt")  # below the folder of all runs


def script(arguments: list[str]) -> str:
    """Return the script that makes a shell ask for completions.

    Args:
        arguments: The name of the shell.

    Raises:
        ConfigError: If it is none of bash, zsh and fish.
    """
    if arguments not in [[shell] for shell in SHELLS]:
        raise ConfigError(f"imgcls completion needs a shell; type: imgcls completion {'|'.join(SHELLS)}")
    code: str = shellcode(["imgcls"], shell=arguments[0])
    return code


def complete() -> None:
    """Answer the shell, which asks by environment variables, and end the process."""
    parser = ArgumentParser("imgcls")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    typed = os.environ["COMP_LINE"].split()[1:2]
    for command, text in (COMMANDS | AT_ONCE).items():
        added = commands.add_parser(command, help=text, add_help=command not in COMMANDS)
        if command == "completion":
            added.add_argument("shell", choices=SHELLS)
        elif command in COMMANDS and [command] == typed:
            options: dict[str, Any] = dict(add_keys(added, command))
            options["config"].completer = FilesCompleter(("yaml", "yml"))
            if "ckpt_path" in options:
                options["ckpt_path"].completer = _checkpoints
            if model := options.get("model.model_name"):
                model.completer = _models
        if command in {*COMMANDS, *OWN_HELP}:
            added.add_argument("words", nargs="*")  # files, as argcomplete proposes by default
    argcomplete.autocomplete(parser)


def _checkpoints(prefix: str, parsed_args: Namespace, **_: Any) -> list[str]:
    runs = Path(getattr(parsed_args, "experiment.output_dir") or keys("fit")["experiment.output_dir"]["default"])
    found = sorted(str(path) for pattern in _CHECKPOINTS for path in runs.glob(pattern))
    files: list[str] = FilesCompleter(("ckpt",))(prefix=prefix)
    return ["last", *found, *files]


def _models(prefix: str, **_: Any) -> list[str]:
    return [*names(), *DirectoriesCompleter()(prefix=prefix)]
