"""The keys that a command accepts, read from schema.json; ``python -m imgcls.cli.make_schema`` writes it."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from imgcls.errors import join_keys

Schema = dict[str, Any]

DEFAULT_CLASSES = {"model": "imgcls.ImageClassifier", "data": "imgcls.ImageDataModule"}
_UNUSED = {  # command -> keys that it accepts, so that one YAML serves all commands, and does not use
    "fit": r"optuna\b",
    "validate": r"optuna\b|model\b(?!\.threshold)",
    "test": r"optuna\b|model\b(?!\.threshold)",
    "predict": r"optuna\b|model\b(?!\.threshold)",
    "tune": r"ckpt_path",
    "check": r"(model|trainer|experiment|optuna|ckpt_path|seed_everything)\b",
    **dict.fromkeys(
        ("export", "explain"), r"(model|data|trainer|optuna|seed_everything)\b|experiment\b(?!\.output_dir)"
    ),
}
_CONSTANTS: dict[str, list[Any]] = {"boolean": [True, False], "null": [None]}


def text() -> str:
    """Return the JSON Schema of the configuration."""
    return Path(__file__).with_name("schema.json").read_text(encoding="utf-8")


@cache
def _whole() -> Schema:
    schema: Schema = json.loads(text())
    return schema


@cache
def of_command(command: str) -> Schema:
    """Return the schema of a command's configuration: the sections, and the options of this command alone."""
    whole = _whole()
    own = {name: found["properties"] for name, found in whole["$defs"].items() if name.startswith("options of ")}
    of_others = {key for options in own.values() for key in options}
    sections = {key: schema for key, schema in whole["properties"].items() if key not in of_others}
    return whole | {"properties": own[f"options of {command}"] | sections}


@cache
def keys(command: str) -> dict[str, Schema]:
    """Return dotted key -> schema; the arguments of model and data without ``init_args``, as on the command line."""
    return dict(_walk(of_command(command), ""))


def used_keys(command: str) -> dict[str, Schema]:
    """Return those of ``keys`` that the command uses."""
    return {key: schema for key, schema in keys(command).items() if not re.match(_UNUSED[command], key)}


def _walk(schema: Schema, before: str) -> Iterator[tuple[str, Schema]]:
    for name, found in inner(schema).items():
        if name == "$schema":  # by which a JSON file names its schema
            continue
        key = join_keys(before, name)
        yield key, found
        yield from _walk(found, key)


def branches(schema: Schema) -> list[Schema]:
    """Return the alternatives of a schema, with what they refer to in place of references."""
    if "$ref" in schema:
        return branches(_whole()["$defs"][schema["$ref"].rpartition("/")[2]])
    return [each for branch in schema["anyOf"] for each in branches(branch)] if "anyOf" in schema else [schema]


def inner(schema: Schema) -> dict[str, Schema]:
    """Return the keys of a section; those of a class are known if it has a default, which is its ``else``."""
    found: dict[str, Schema] = {}
    for branch in branches(schema):
        found |= inner(branch["else"]) if "else" in branch else {} if "if" in branch else branch.get("properties", {})
    return found


def kinds(schema: Schema) -> list[str]:
    """Return the types of JSON that a schema names; none where it accepts anything."""
    named = [branch.get("type", []) for branch in branches(schema)]
    return [kind for each in named for kind in ([each] if isinstance(each, str) else each)]


def choices(schema: Schema) -> list[Any]:
    """Return the values that a schema accepts where it lists them; none where it accepts others."""
    found: list[Any] = []
    for branch in branches(schema):
        if "enum" not in branch and not set(kinds(branch)) <= _CONSTANTS.keys():
            return []
        found += branch.get("enum", [value for kind in kinds(branch) for value in _CONSTANTS[kind]])
    return found
