"""Writes answers.json: the help texts and the keys of the real parser, for answers before the parser is imported.

Run it after changing an option, a default or a docstring: ``python -m imgcls.cli.make_schema``; a test compares.
"""

import inspect
import json
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

import imgcls
from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.cli.argv import COMMANDS, EVALUATIONS
from imgcls.cli.parser import ImgclsCLI
from imgcls.datasets.dataset import ImageDataset

FILE = Path(__file__).with_name("answers.json")
_WIDTH = "100"


def collect() -> dict[str, Any]:
    """Ask the real parser for its help and its keys."""
    sections = _printed_config("fit")
    model, data = sections["model"]["init_args"], sections["data"]["init_args"]
    classes = {f"imgcls.{name}": _arguments(name) for name in imgcls.__all__ if _is_configurable(name)}
    classes |= {"imgcls.ImageClassifier": model, "imgcls.ImageDataModule": data}
    options = {command: sorted(_printed_config(command).keys() - sections.keys()) for command in COMMANDS}
    return {
        "help": {command: _help(command) for command in COMMANDS},
        "sections": sections,
        "options": options,
        "classes": classes,
    }


def _printed_config(command: str) -> dict[str, Any]:
    config: dict[str, Any] = _keys(yaml.safe_load(_output([command, "--print_config"])))
    return config


def _keys(value: Any) -> Any:
    """Keep the keys of a configuration and forget its values."""
    return {key: _keys(item) for key, item in value.items()} or None if isinstance(value, dict) else None


def _is_configurable(name: str) -> bool:
    found = getattr(imgcls, name)
    return inspect.isclass(found) and issubclass(found, (ImageDataset, MetricsLogger))


def _arguments(name: str) -> dict[str, None]:
    return dict.fromkeys(inspect.signature(getattr(imgcls, name)).parameters)


def _help(command: str) -> str:
    usage = f"usage: imgcls {command} [--config FILE.yaml ...] [--section.key VALUE ...]"
    parts = [usage, COMMANDS[command][0].upper() + COMMANDS[command][1:] + "."]
    data, model = (_after(_output([command, f"--{section}.help"]), "Help for") for section in ("data", "model"))
    # of the model, which is the checkpoint's, an evaluation takes one option
    parts += [data, _only("--model.threshold", model) if command in EVALUATIONS else model]
    parts.append(_after(_output([command, "--help"]), "options:", keep=True))
    return "\n\n".join(part.strip() for part in parts)


def _after(text: str, mark: str, keep: bool = False) -> str:
    """Leave out the usage, which repeats every option."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(mark))
    return "\n".join(line.rstrip() for line in lines[start if keep else start + 1 :])


def _only(option: str, text: str) -> str:
    """Return what a help says of one option."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"  {option}"))
    ends = (number for number in range(start + 1, len(lines)) if not lines[number].startswith("   "))
    return "\n".join(lines[start : next(ends, None)])


def _output(arguments: list[str]) -> str:
    with redirect_stdout(StringIO()) as output, mock.patch.dict(os.environ, COLUMNS=_WIDTH):
        try:
            ImgclsCLI(arguments)
        except SystemExit:
            return output.getvalue()
    raise AssertionError(f"{arguments} ran")


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
