"""Class names and labels: one name per sample, or a tuple of names in a multi-label dataset.

An empty tuple means that none of the classes applies; None means that the label is unknown.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Label = str | tuple[str, ...]

SEPARATOR = ";"


def names_in(label: object) -> tuple[str, ...]:
    """Return the class names of a label."""
    return tuple(map(str, label)) if isinstance(label, tuple) else (str(label),)


def to_text(label: object) -> str:
    """Return a label as text: the name, or sorted names separated by ``;``.

    Names that ``read_names`` could not separate again are written as a JSON list, which it also reads.
    """
    if not isinstance(label, tuple):
        return str(label)
    names = sorted(names_in(label))
    text = SEPARATOR.join(names)
    is_plain = _json_names(text) is None and (not names or [part.strip() for part in text.split(SEPARATOR)] == names)
    return text if is_plain else json.dumps(names, ensure_ascii=False)


def read_names(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Return the class names in a text, sorted and without surrounding blanks; a blank text has none.

    They are separated, or a JSON list.

    Raises:
        ValueError: If a name is empty or repeated.
    """
    names = _json_names(text)
    if names is None:
        names = [part.strip() for part in text.split(separator)] if text.strip() else []
    if fault := fault_in(names):
        raise ValueError(f"{fault} in {text!r}")
    return tuple(sorted(names))


def fault_in(names: Sequence[str]) -> str:
    """Return what is wrong with the names of a sample: an empty or a repeated name; "" if nothing is."""
    if not all(name.strip() for name in names):
        return "an empty name"
    repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
    return "" if repeated is None else f"{repeated!r} twice"


def multi_hot(labels: Sequence[object], columns: Mapping[str, int]) -> NDArray[np.uint8]:
    """Return labels as an array ``(samples, classes)`` of 0 and 1, by the column of each class name."""
    array = np.zeros((len(labels), len(columns)), dtype=np.uint8)
    for row, label in enumerate(labels):
        array[row, [columns[name] for name in names_in(label)]] = 1
    return array


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders ``class2`` before ``class10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ only in case, surrounding blanks or Unicode normalisation."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).strip().casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _json_names(text: str) -> list[str] | None:
    """Return the names of a JSON list; None for any other text."""
    if not text.strip().startswith("["):
        return None
    try:
        names: list[str] = json.loads(text)
    except json.JSONDecodeError:
        return None
    return names if all(isinstance(name, str) for name in names) else None
