"""Validate configuration files and options against the schema, before any heavy import; name all faults at once."""

import json
import os
import re
import shlex
from typing import Any, NamedTuple

import yaml

from imgcls.cli.argv import FLAGS, LISTS, Option
from imgcls.cli.positional_arguments import FOLDERS
from imgcls.cli.schema import DEFAULT_CLASSES, Schema, branches, inner, keys, kinds, of_command, used_keys
from imgcls.cli.suggest import ABSENT, nearest
from imgcls.cli.violations import Validator, Violation
from imgcls.config.yaml_content import Content, Place, compose_text
from imgcls.errors import did_you_mean, join_keys, known_names
from imgcls.models.huggingface.hub_ids import hub_id

_OF_A_CLASS = ["class_path", "init_args", "dict_kwargs"]
_NO_KEYS = ("--config", "--help", "--print_config")
_FREE = ("search_spaces", "unfreeze")  # whose keys may be any
# in place of a section or list the parser reads a file, or a text in YAML; in place of a class its path or name, too
_READ = re.compile(r"\s*[\[{]|.*\.(ya?ml|json)$")
_CLASS_PATH = re.compile(r"\w+(\.\w+)+|[A-Z]\w*")
_WORDS = {"array": "a list", "boolean": "true or false", "integer": "an integer", "number": "a number"}
_WORDS |= {"null": "null", "object": "a mapping", "string": "a text"}
_SHOWN = 8  # keys that a message names


class Fault(NamedTuple):
    """What is wrong with a configuration file or an option, and the option that was meant instead, if that is clear."""

    text: str
    option: Option | None = None
    meant: Option | None = None


def faults(command: str, files: list[tuple[str, yaml.MappingNode]], options: list[Option]) -> list[Fault]:
    """Return all faults of configuration files and options, those of files with their lines.

    Args:
        command: The command.
        files: The path of each file, and its content.
        options: Names, each with the values that follow it.
    """
    sources = [_Source(command, path, Content(node)) for path, node in files]
    sources += [_option(command, option) for option in options if option[0] not in _NO_KEYS]
    given = [(section, source.content.value.get(section)) for source in sources for section in DEFAULT_CLASSES]
    own: Schema = {section: {} for section, value in given if _is_own(section, value)}  # known to the parser alone
    schema = of_command(command)
    validator = Validator(schema | {"properties": schema["properties"] | own})
    return [fault for source in sources for fault in source.faults(validator)]


def _is_own(section: str, value: Any) -> bool:
    """Whether a value of a section names another class than the default."""
    class_path = value.get("class_path") if isinstance(value, dict) else value
    is_path = isinstance(class_path, str) and "." in class_path and _CLASS_PATH.fullmatch(class_path)
    return bool(is_path) and class_path != DEFAULT_CLASSES[section]


class _Source(NamedTuple):
    """A configuration file, or an option as a file would have it.

    Args:
        command: The command.
        name: The path of the file, or the option.
        content: The configuration.
        option: The option.
        typed: Of an option, its keys.
        is_part: Whether the option gives only a part of the value of these keys.
    """

    command: str
    name: str
    content: Content
    option: Option | None = None
    typed: Place = ()
    is_part: bool = False

    def faults(self, validator: Validator) -> list[Fault]:
        """Return all faults, in the order of their lines."""
        found = {place: Fault(f"the key {_dotted(place)!r} is given twice") for place in self.content.repeated}
        for violation in validator.violations(self.content.value):
            place = violation.place
            if violation.keyword == "additionalProperties":
                of_class = _OF_A_CLASS if _dotted(place) in DEFAULT_CLASSES else []
                allowed = dict.fromkeys([*violation.schema["properties"], *of_class])
                siblings = [key for key in allowed if key != "$schema"]
                unknown = [key for key in violation.value if key not in {*siblings, "$schema"}]
                found |= {(*place, key): self._unknown(place, key, siblings) for key in unknown}
            elif not self._may_be_right(violation):
                found[place] = self._wrong(violation)
        lines = self.content.lines
        if not self.option:
            ordered = sorted(found, key=lines.__getitem__)
            return [Fault(f"{self.name}:{lines[place]}: {found[place].text}") for place in ordered]
        starts = {place: f"{self.name}: " if len(place) > len(self.typed) else "" for place in found}
        return [fault._replace(text=starts[place] + fault.text, option=self.option) for place, fault in found.items()]

    def _wrong(self, violation: Violation) -> Fault:
        """Return the fault of a value."""
        place, value = violation.place, violation.value
        name = _dotted(place)
        if name not in DEFAULT_CLASSES or not isinstance(value, str) or value in {"", "null"}:
            dashes = "--" if len(place) <= len(self.typed) else ""
            return Fault(f"{dashes}{_wrong_value(name, violation)}")
        what, *meant = {
            "data": ("use a folder", FOLDERS[self.command], value),
            "model": ("choose a network", "--model.model_name", hub_id(value)),
        }[name]
        option = (meant[0], [meant[1]]) if place == self.typed else None
        return Fault(f"{'--' * bool(self.typed)}{name} takes a class; to {what}: {shlex.join(meant)}", meant=option)

    def _may_be_right(self, violation: Violation) -> bool:
        """Whether the parser may accept what the schema does not."""
        place, keyword, value, schema, _ = violation
        expected = {*kinds(schema)}
        if self.is_part and place == self.typed:
            return True
        if keyword == "required":  # may be misspelt, or in another file or option but for an item of a list
            in_list = any(isinstance(part, int) for part in place)
            return not in_list or not value.keys() <= schema["properties"].keys()
        if value is None:  # which jsonargparse 4.53 does not check
            return not inner(schema)
        if isinstance(value, str):
            is_class = any("if" in branch for branch in branches(schema))
            is_class_path = is_class and _CLASS_PATH.fullmatch(value) and not os.path.isdir(value)
            is_read = os.path.isfile(value) or _READ.match(value) or is_class_path
            return bool({"array", "object"} & expected and keyword != "pattern" and is_read)
        is_text = isinstance(value, (list, dict)) and "string" in expected  # in which the command line has brackets
        return bool(self.typed) and place == self.typed and is_text

    def _unknown(self, place: Place, key: str, siblings: list[str]) -> Fault:
        """Return the fault of a key that does not exist."""
        full = _dotted((*place, key))
        section = re.sub(r"^(model|data)\.init_args", r"\1", _dotted(place))
        known = used_keys(self.command)
        near = nearest(section, key, siblings, known if section in {"", *known} else [])
        if len(place) < len(self.typed):
            return self._unknown_option(key, siblings, near, self.typed[len(place) + 1 :])
        if siblings[:3] == _OF_A_CLASS and full in known:
            return Fault(f"{full!r} is beside init_args; move it into init_args")
        if not near:
            return Fault(f"unknown key {full!r}{known_names(key, siblings)}")
        names = [each.removeprefix(f"{section}.") if each.rpartition(".")[0] == section else each for each in near]
        return Fault(f"unknown key {full!r}; did you mean {' or '.join(map(repr, names))}?")

    def _unknown_option(self, key: str, siblings: list[str], near: list[str], rest: Place) -> Fault:
        """Return the fault of an option of which ``key`` does not exist, above the keys ``rest``."""
        known = used_keys(self.command)
        if rest:
            within = [each for one in near if (each := ".".join([one, *map(str, rest)])) in known]
            near = within or nearest("", str(rest[-1]), [], known)
        text = f"unknown option {self.name}"
        if key in ABSENT:
            return Fault(f"{text}; imgcls has none; {ABSENT[key]}")
        if not near:
            return Fault(f"{text}{known_names(key, siblings)}; all options: imgcls {self.command} --help all")
        names = " or ".join(f"--{each.replace('=', ' ')}" for each in near)
        return Fault(f"{text}; did you mean {names}?", meant=self._meant(near[0]) if len(near) == 1 else None)

    def _meant(self, key: str) -> Option | None:
        """Return this option with another key, and with the value that the key or its kind implies."""
        key, _, implied = key.partition("=")
        values = self.option[1] if self.option else []
        if implied and values not in ([], ["true"], ["True"]):
            return None
        if key == "trainer.accelerator" and values and re.fullmatch(r"[\d,]+", values[0]):  # device=0, as in YOLO
            return "--trainer.devices", [f"[{values[0]}]"]
        if key == "model.model_name":
            values = [*map(hub_id, values)]
        flag = ["true"] if "boolean" in kinds(keys(self.command).get(key, {})) else []
        return f"--{key}", [implied] if implied else values or flag


def _option(command: str, option: Option) -> _Source:
    """Return an option as a file would have it, up to the index of a list or keys that may be any."""
    name, values = option
    text = json.dumps(values) if name in LISTS else "".join(values[:1]) or ("true" if name in FLAGS else "")
    keys = name[2:].removesuffix("+").removesuffix(".help").split(".")
    ends = [number for number, key in enumerate(keys) if key.isdecimal() or (number and keys[number - 1] in _FREE)]
    typed = tuple(keys[: ends[0]] if ends else keys)
    content = Content(compose_text(text), typed)
    if name.endswith("+") and not isinstance(content.value, list):
        content.value = [content.value]
    for key in reversed(typed):
        content.value = {key: content.value}
    return _Source(command, name, content, option, typed, bool(ends) or name.endswith(".help"))


def _wrong_value(name: str, violation: Violation) -> str:
    """Say what is expected at a key, and what was found."""
    value, names = violation.value, ", ".join([*inner(violation.schema)][:_SHOWN])
    if violation.keyword == "required":
        missing = [repr(key) for key in violation.schema["required"] if key not in value]
        return f"{name} needs {', '.join(missing)}"
    if names and value in (None, "null"):
        return f"{name} is empty; leave it out, or give it a key"
    if names:
        return f"{name} must be a section with keys ({names}), got {_shown(value)}"
    if violation.keyword == "pattern":
        key = f"--{name.replace('.init_args', '', 1)}"
        table = f"{key}.class_path imgcls.CsvImageDataset {key}.init_args.csv {shlex.quote(value)}"
        return f"{name}: {value!r} is not a folder; for a table, type {table}"
    if violation.keyword not in {"type", "enum", "anyOf"}:
        return f"{name}: {violation.message}"
    known = [each for branch in branches(violation.schema) for each in branch.get("enum", [])]
    *others, last = [*map(_shown, known), *(_WORDS[kind] for kind in kinds(violation.schema))]
    expected = f"{', '.join(others)} or {last}" if others else last
    example = "; for example 128, or [128,160] (height, width)" if name.endswith(".image_size") else ""
    return f"{name} must be {expected}, got {_shown(value)}{did_you_mean(str(value), map(str, known))}{example}"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _dotted(place: Place) -> str:
    name = ""
    for part in place:
        name = f"{name}[{part}]" if isinstance(part, int) else join_keys(name, part)
    return name
