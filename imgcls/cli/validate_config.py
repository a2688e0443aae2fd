"""Validate configuration files and options against the schema, before any heavy import; name all faults at once."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from imgcls.cli.argv import LISTS
from imgcls.cli.schema import DEFAULT_CLASSES, Schema, branches, inner, keys, kinds, of_command
from imgcls.cli.suggest import nearest
from imgcls.cli.yaml_content import Content, Place, compose_text, scalar
from imgcls.errors import did_you_mean, join_keys, known_names

_OF_A_CLASS = ["class_path", "init_args", "dict_kwargs"]
_NO_KEYS = ("--config", "--help", "--print_config")
_FLAGS = ("--overwrite",)  # which need no value
_FREE = ("search_spaces", "unfreeze")  # whose keys may be any
# in place of a section or list the parser reads a file, or a text in YAML; in place of a class its path or name, too
_READ = re.compile(r"\s*[\[{]|.*\.(ya?ml|json)$")
_CLASS_PATH = re.compile(r"\w+(\.\w+)+|[A-Z]\w*")
_WORDS = {"array": "a list", "boolean": "true or false", "integer": "an integer", "number": "a number"}
_WORDS |= {"null": "null", "object": "a mapping", "string": "a text"}
_INSTEAD = {  # section that is a class -> what to type for a name
    "data": "to use a folder: --data.dataset_classes.train",
    "model": "to choose a network: --model.model_name",
}
_SHOWN = 8  # keys that a message names


def _is(*types: type) -> Any:
    """Make a check of a value's type; as for the parser, a text may stand for a number, a truth value or null."""

    def check(_: Any, value: Any) -> bool:
        read = scalar(value) if isinstance(value, str) else value
        return isinstance(read, types) and (bool in types or not isinstance(read, bool))

    return check


def _enum(_: Any, values: list[Any], value: Any, __: Schema) -> Iterator[ValidationError]:
    if value not in values and not (isinstance(value, str) and scalar(value) in values):
        yield ValidationError(f"{value!r} is not one of {values!r}")


_TYPES = {"boolean": _is(bool), "integer": _is(int), "number": _is(int, float), "null": _is(type(None))}
_Validator = extend(
    Draft202012Validator, {"enum": _enum}, type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(_TYPES)
)


def faults(command: str, files: list[tuple[str, yaml.MappingNode]], options: list[tuple[str, list[str]]]) -> list[str]:
    """Return all faults of configuration files and options, those of files with their lines.

    Args:
        command: The command.
        files: The path of each file, and its content.
        options: Names, each with the values that follow it.
    """
    sources = [_Source(path, Content(node)) for path, node in files]
    sources += [_option(name, text) for name, texts in options if name not in _NO_KEYS for text in _texts(name, texts)]
    given = [(section, source.content.value.get(section)) for source in sources for section in DEFAULT_CLASSES]
    own: Schema = {
        section: {} for section, value in given if _is_own(section, value)
    }  # whose arguments the parser knows
    schema = of_command(command)
    validator = _Validator(schema | {"properties": schema["properties"] | own})
    return [fault for source in sources for fault in source.faults(validator, keys(command))]


def _texts(name: str, values: list[str]) -> list[str]:
    """Return the values of an option; those of one that takes several are one list."""
    return [json.dumps(values)] if name in LISTS else values or ["true" if name in _FLAGS else ""]


def _is_own(section: str, value: Any) -> bool:
    """Whether a value of a section names another class than the default."""
    class_path = value.get("class_path") if isinstance(value, dict) else value
    return isinstance(class_path, str) and "." in class_path and class_path != DEFAULT_CLASSES[section]


class _Source:
    """A configuration file, or an option as a file would have it.

    Args:
        name: The path of the file, or the option.
        content: The configuration.
        typed: Of an option, its keys.
        is_part: Whether the option gives only a part of the value of these keys.
    """

    def __init__(self, name: str, content: Content, typed: Place = (), is_part: bool = False) -> None:
        self.name = name
        self.content = content
        self.typed = typed
        self.is_part = is_part

    def faults(self, validator: Any, known: dict[str, Schema]) -> list[str]:
        """Return all faults, in the order of their lines."""
        found = {place: f"the key {_dotted(place)!r} is given twice" for place in self.content.repeated}
        for error in (cause for each in validator.iter_errors(self.content.value) for cause in _causes(each)):
            place = tuple(error.absolute_path)
            if error.validator == "additionalProperties":
                of_class = _OF_A_CLASS if _dotted(place) in DEFAULT_CLASSES else []
                siblings = list(dict.fromkeys([*error.schema["properties"], *of_class]))
                unknown = [key for key in error.instance if key not in {*siblings, "$schema"}]
                found |= {(*place, key): self._unknown(place, key, siblings, known) for key in unknown}
            elif not self._may_be_right(error):
                dashes = "--" if len(place) <= len(self.typed) else ""
                found[place] = f"{dashes}{_wrong_value(_dotted(place), error)}"
        lines = self.content.lines
        if not self.typed:
            return [f"{self.name}:{lines[place]}: {found[place]}" for place in sorted(found, key=lines.__getitem__)]
        return [f"{self.name}: {text}" if len(place) > len(self.typed) else text for place, text in found.items()]

    def _may_be_right(self, error: ValidationError) -> bool:
        """Whether the parser may accept what the schema does not."""
        value, place, expected = error.instance, tuple(error.absolute_path), {*kinds(error.schema)}
        if self.is_part and place == self.typed:
            return True
        if error.validator == "required":  # may be misspelt, or in another file or option but for an item of a list
            return (
                not any(isinstance(part, int) for part in place)
                or not value.keys() <= error.schema["properties"].keys()
            )
        if value is None:  # which jsonargparse 4.53 does not check
            return not inner(error.schema)
        if isinstance(value, str):
            is_class = any("if" in branch for branch in branches(error.schema))
            is_read = os.path.isfile(value) or _READ.match(value) or (is_class and _CLASS_PATH.fullmatch(value))
            return bool({"array", "object"} & expected and error.validator != "pattern" and is_read)
        is_text = isinstance(value, (list, dict)) and "string" in expected  # in which the command line has brackets
        return bool(self.typed) and place == self.typed and is_text

    def _unknown(self, place: Place, key: str, siblings: list[str], known: dict[str, Schema]) -> str:
        full = _dotted((*place, key))
        section = re.sub(r"^(model|data)\.init_args", r"\1", _dotted(place))
        near = nearest(section, key, siblings, known if section in {"", *known} else [])
        if len(place) < len(self.typed):
            if rest := ".".join(map(str, self.typed[len(place) + 1 :])):
                near = f"{near}.{rest}" if f"{near}.{rest}" in known else nearest("", str(self.typed[-1]), [], known)
            return f"unknown option {self.name}{f'; did you mean --{near}?' if near else known_names(key, siblings)}"
        if siblings[:3] == _OF_A_CLASS and full in known:
            return f"{full!r} is beside init_args; move it into init_args"
        within, _, last = (near or "").rpartition(".")
        hint = f"; did you mean {last if within == section else near!r}?" if near else known_names(key, siblings)
        return f"unknown key {full!r}{hint}"


def _option(option: str, text: str) -> _Source:
    """Return an option as a file would have it, up to the index of a list or keys that may be any."""
    keys = option[2:].removesuffix("+").removesuffix(".help").split(".")
    ends = [number for number, key in enumerate(keys) if key.isdecimal() or (number and keys[number - 1] in _FREE)]
    typed = tuple(keys[: ends[0]] if ends else keys)
    content = Content(compose_text(text), typed)
    if option.endswith("+") and not isinstance(content.value, list):
        content.value = [content.value]
    for key in reversed(typed):
        content.value = {key: content.value}
    return _Source(option, content, typed, bool(ends) or option.endswith(".help"))


def _causes(error: ValidationError) -> list[ValidationError]:
    """Return what is wrong within the alternative that was probably meant, the error itself where that is open."""
    within = [each for each in error.context or () if each.relative_path or each.validator not in {"type", "enum"}]
    return [cause for each in within for cause in _causes(each)] or [error]


def _wrong_value(name: str, error: ValidationError) -> str:
    """Say what is expected at a key, and what was found."""
    value, names = error.instance, ", ".join([*inner(error.schema)][:_SHOWN])
    if error.validator == "required":
        return f"{name} needs {', '.join(repr(key) for key in error.validator_value if key not in value)}"
    if names and value in (None, "null"):
        return f"{name} is empty; leave it out, or give it a key"
    if name in _INSTEAD and isinstance(value, str):
        return f"{name} takes a class; {_INSTEAD[name]} {shlex.quote(value)}"
    if names:
        return f"{name} must be a section with keys ({names}), got {_shown(value)}"
    if error.validator == "pattern":
        key = f"--{name.replace('.init_args', '', 1)}"
        table = f"{key}.class_path imgcls.CsvImageDataset {key}.init_args.csv {shlex.quote(value)}"
        return f"{name}: {value!r} is not a folder; for a table, type {table}"
    if error.validator not in {"type", "enum", "anyOf"}:
        return f"{name}: {error.message}"
    known = [each for branch in branches(error.schema) for each in branch.get("enum", [])]
    *others, last = [*map(_shown, known), *(_WORDS[kind] for kind in kinds(error.schema))]
    expected = f"{', '.join(others)} or {last}" if others else last
    return f"{name} must be {expected}, got {_shown(value)}{did_you_mean(str(value), map(str, known))}"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _dotted(place: Place) -> str:
    name = ""
    for part in place:
        name = f"{name}[{part}]" if isinstance(part, int) else join_keys(name, part)
    return name
