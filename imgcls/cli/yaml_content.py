"""The values in YAML as JSON has them, with their lines."""

import re
from typing import Any

import yaml

from imgcls.cli.argv import find_fault

_MERGE = "tag:yaml.org,2002:merge"

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


class Content:
    """The value of a node, with the lines of its keys and list items, and the keys that are given twice.

    Args:
        node: The node.
        within: The keys that lead to it.
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
