"""What is wrong with a command line, before any heavy import: command, missing values, keys and values."""

import os
import shlex
from difflib import get_close_matches

from imgcls.cli.argv import COMMANDS, config_files, join_options, split_options
from imgcls.cli.help import AT_ONCE
from imgcls.cli.positional_arguments import CONFIGS
from imgcls.config.yaml_content import compose_yaml
from imgcls.errors import ConfigError, did_you_mean

_VALUES = {"--config": "FILE.yaml", "-c": "FILE.yaml", "--ckpt_path": "FILE.ckpt", "--images": "PATH"}
_VALUES |= {"--allow": "leakage", "--json": "FILE.json", "--html": "FILE.html", "--tta": "hflip", "--format": "hf"}
_VALUES |= {"--top_k": "5", "--embeddings": "FILE.npy", "--risk": "0.02", "--coverage": "0.9"}
_VALUES |= {"--calibrate_on": "test_predictions.csv"}
_VALUES |= {"--target": "CLASS", "--against": "CLASS"}
_OTHER_NAMES = {  # command -> what other programs call it
    "fit": "train training trainer finetune fine_tune",
    "validate": "val valid validation",
    "test": "eval evaluate evaluation",
    "predict": "inference infer classify prediction detect",
    "tune": "search sweep optimize hpo",
    "check": "inspect lint data",
    "export": "convert save deploy onnx",
    "explain": "gradcam grad_cam cam heatmap heat_map visualize saliency",
}
SYNONYMS = {name: command for command, names in _OTHER_NAMES.items() for name in names.split()}
_OLD_FLAGS = {"--test": "test", "--val": "validate", "--predict": "predict"}


def check_command(arguments: list[str]) -> None:
    """Refuse an unknown command.

    Raises:
        ConfigError: Names what was probably meant.
    """
    first, *rest = arguments
    if first in COMMANDS:
        return
    if first in {"-c", *_OLD_FLAGS} or first.partition("=")[0] == "--config" or _is_input(first):
        meant = next((_OLD_FLAGS[argument] for argument in arguments if argument in _OLD_FLAGS), "fit")
        line = [meant, *(argument for argument in arguments if argument not in _OLD_FLAGS)]
        raise ConfigError(f"a command comes first; type: imgcls {shlex.join(line)}")
    commands = [*COMMANDS, *AT_ONCE]
    near = get_close_matches(first, [*commands, *SYNONYMS], 1)
    if first in SYNONYMS or (near and near[0] in SYNONYMS):
        line = [SYNONYMS[first if first in SYNONYMS else near[0]], *rest]
        raise ConfigError(f"no command {first!r}; did you mean {line[0]!r}? type: imgcls {shlex.join(line)}")
    raise ConfigError(f"no command {first!r}{did_you_mean(first, commands)}; there are {', '.join(commands)}")


def _is_input(word: str) -> bool:
    return word.endswith(CONFIGS) or (os.path.exists(word) and not word.isidentifier())


def check(arguments: list[str], typed: list[str] | None = None) -> None:
    """Refuse an unknown section or key, a missing value, and a configuration file that cannot be read.

    Args:
        arguments: A command line without positional arguments.
        typed: The command line as it was typed, with the same options, for the one to type instead.

    Raises:
        ConfigError: Names all that was found, and what was probably meant.
    """
    options = split_options(arguments)
    for name, values in options:
        if name in _VALUES and not any(values):
            raise ConfigError(f"{name} needs a value; type {name} {_VALUES[name]}")
    files = [(path, compose_yaml(path)) for path in config_files(arguments)]
    from imgcls.cli.validate_config import faults  # takes 0.1 s

    found = faults(arguments[0], files, [option for option in options[1:] if option[0].startswith("--")])
    lines = [fault.text for fault in found]
    if found and all(fault.meant for fault in found):
        instead = {str(fault.option): fault.meant for fault in found}
        as_typed = split_options(typed or arguments)
        line = [instead.get(str(each)) or short for each, short in zip(options, as_typed, strict=True)]
        lines.append(f"type: imgcls {shlex.join(join_options(line))}")
    if lines:
        raise ConfigError("\nimgcls: ".join(lines))
