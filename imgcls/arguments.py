"""The command line and the YAML files, read without the parser: what answers in an instant needs no heavy import."""

import json
from pathlib import Path
from typing import Any

import yaml

from imgcls.errors import ConfigError

EVALUATIONS = ("validate", "test", "predict")
COMMANDS = ("fit", *EVALUATIONS)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, which refuses a key that is given twice; by itself it keeps the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: str) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: If it is missing, no YAML, gives a key twice or is no mapping; names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: cannot be read: {error}") from error
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no sections; a configuration starts with 'data:', 'model:' or 'trainer:'")
    return content


def option_values(arguments: list[str], *names: str) -> list[str]:
    """Return the values of an option, given as ``--name value`` or ``--name=value``, in order."""
    values = []
    for number, argument in enumerate(arguments):
        if argument in names and number + 1 < len(arguments):
            values.append(arguments[number + 1])
        else:
            values += [argument.removeprefix(f"{name}=") for name in names if argument.startswith(f"{name}=")]
    return values


def config_files(arguments: list[str]) -> list[str]:
    """Return the files given with --config, in order."""
    return option_values(arguments, "--config", "-c")


def checkpoint_argument(arguments: list[str]) -> str | None:
    """Return the checkpoint that the command line names, else the last configuration file that names one."""
    named = [read_yaml(path).get("ckpt_path") for path in config_files(arguments)]
    named += option_values(arguments, "--ckpt_path")
    given = [path for path in named if path is not None]
    return None if not given or given[-1] in {"null", "None"} else str(given[-1])


def join_images(arguments: list[str]) -> list[str]:
    """Rewrite ``--images A B … --images C`` into the one form that the parser reads, a JSON list."""
    rest: list[str] = []
    paths: list[str] = []
    taking = False
    for argument in arguments:
        if argument == "--images":
            taking = True
        elif argument.startswith("--images="):
            paths.append(argument.removeprefix("--images="))
            taking = False
        elif taking and not argument.startswith("--"):
            paths.append(argument)
        else:
            taking = False
            rest.append(argument)
    return [*rest, f"--images={json.dumps(paths)}"] if paths else arguments
