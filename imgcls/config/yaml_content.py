"""Read a configuration file in YAML: its values as JSON has them, with their lines."""

import re
from pathlib import Path
from typing import Any

import yaml

from imgcls.errors import ConfigError, similar_path

_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 50  # levels of a configuration, within Python's limit of recursion
_TOO_DEEP = f"holds more than {_DEEPEST} levels, one within the other"

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


def compose_yaml(path: str) -> yaml.MappingNode:
    """Read a configuration file into YAML nodes, which know their lines.

    Raises:
        ConfigError: If it is missing, or is not a YAML mapping; names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: no such file{similar_path(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: cannot be read: {error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: has no sections; a configuration has sections such as 'data:' and 'model:'")
    if fault := find_fault(node):
        raise ConfigError(f"{path}:{fault[0].start_mark.line + 1}: {fault[1]}")
    return node


def find_fault(node: yaml.Node, above: tuple[yaml.Node, ...] = ()) -> tuple[yaml.Node, str] | None:
    """Return the first node that is YAML and yet no configuration, with what is wrong; None if there is none.

    ``above`` are the nodes that hold it.
    """
    if node in above:
        return node, "holds itself, by the alias of its own anchor; write out what is meant"
    if len(above) == _DEEPEST:
        return node, _TOO_DEEP
    inner = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if not isinstance(key, yaml.ScalarNode):
            return key, "a key is a text, and no list or mapping; put quotes around a text with braces"
        inner.append(value)
    return next((fault for item in inner if (fault := find_fault(item, (*above, node)))), None)


class Content:
    """The value of a node, with the lines of its keys and list items, and the keys that are given twice.

    ``within`` are the keys that lead to the node.
    """

    def __init__(self, node: yaml.Node, within: Place = ()) -> None:
        self.lines: dict[Place, int] = {}
        self.repeated: list[Place] = []
        self.value = self._read(node, within)

    def _read(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*place, number)) for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            quoted = isinstance(node, yaml.ScalarNode) and node.style
            return node.value if quoted else scalar(node.value)
        values: dict[str, Any] = {}
        for key, value in _pairs(node):
            inner = (*place, key.value)
            self.repeated += [inner] if key.value in values else []
            self.lines[inner] = key.start_mark.line + 1
            values[key.value] = self._read(value, inner)
        return values


def compose_text(text: str) -> yaml.Node:
    """Read a list or mapping in YAML; anything else is a text, such as the pattern of a file name."""
    plain = yaml.ScalarNode("tag:yaml.org,2002:str", text, start_mark=yaml.Mark("", 0, 0, 0, "", 0), style="'")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return plain
    return plain if not isinstance(node, yaml.CollectionNode) or find_fault(node) else node


def scalar(text: str) -> Any:
    """Return the number, truth value or null that a text means, as the parser reads it; else the text."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # such as a date that does not exist
        return text
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_]*(\.\d*)?e[-+]?\d+", value, re.I):
        return float(value)  # PyYAML reads YAML 1.1, which has no 1e-3
    return value if value is None or isinstance(value, (bool, int, float)) else text


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the keys and values of a mapping, with those that ``<<: *anchor`` merges into it; its own come first."""
    pairs = [(key, value) for key, value in node.value if key.tag != _MERGE]
    for merged in (value for key, value in node.value if key.tag == _MERGE):
        for part in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            names = {key.value for key, _ in pairs}
            given = _pairs(part) if isinstance(part, yaml.MappingNode) else []
            pairs += [pair for pair in given if pair[0].value not in names]
    return pairs
