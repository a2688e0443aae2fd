"""What is wrong with a command line, before any heavy import: command, stray and missing values, keys and values."""

import os
import shlex
from pathlib import Path

from imgcls.cli.argv import COMMANDS, LISTS, compose_yaml, config_files, split_options
from imgcls.cli.help import AT_ONCE
from imgcls.errors import ConfigError, did_you_mean

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
_SYNONYMS = {"train": "fit", "val": "validate", "evaluate": "test", "eval": "test", "search": "tune"}
_OLD_SPELLINGS = {"--config": "fit", "-c": "fit", "--test": "test", "--val": "validate", "--predict": "predict"}


def check(arguments: list[str]) -> None:
    """Refuse an unknown command, section or key, and a configuration file that cannot be read.

    Raises:
        ConfigError: Names all that was found, and what was probably meant.
    """
    command = arguments[0]
    if command not in COMMANDS:
        raise ConfigError(_no_command(arguments))
    options = split_options(arguments)
    for name, values in options:
        _check_values(arguments, name, values)
    files = [(path, compose_yaml(path)) for path in config_files(arguments)]
    from imgcls.cli.validate_config import faults  # takes 0.1 s

    found = faults(command, files, [option for option in options[1:] if option[0].startswith("--")])
    if found:
        raise ConfigError("\nimgcls: ".join(found))


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
    raise ConfigError(f"{bare[0]!r} needs {meant[bare[0]]} before it; type: imgcls {line}")


def _option_for(command: str, value: str) -> str | None:
    """Return the option that a value without one was probably meant for."""
    suffix = Path(value).suffix
    return _SUFFIXES[suffix] if suffix in _SUFFIXES else _FOLDERS.get(command) if os.path.exists(value) else None


def _no_command(arguments: list[str]) -> str:
    first = arguments[0]
    if first.partition("=")[0] in _OLD_SPELLINGS:
        new = next((_OLD_SPELLINGS[a] for a in arguments if a in {"--test", "--val", "--predict"}), "fit")
        rest = [argument for argument in arguments if argument not in {"--test", "--val", "--predict"}]
        return f"a command comes first; type: imgcls {shlex.join([new, *rest])}"
    commands = [*COMMANDS, *AT_ONCE]
    hint = f"; did you mean {_SYNONYMS[first]!r}?" if first in _SYNONYMS else did_you_mean(first, commands)
    return f"no command {first!r}{hint}; there are {', '.join(commands)}"
