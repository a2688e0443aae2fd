"""The labels of a sample: the name of its class, or of each of its classes where it may have several.

Where it may have several, a label is a tuple of names; an empty one says that the sample is of no class, None that its
classes are not known.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Label = str | tuple[str, ...]

SEPARATOR = ";"


def names_in(label: object) -> tuple[str, ...]:
    """Return the class names of a label."""
    return tuple(map(str, label)) if isinstance(label, tuple) else (str(label),)


def to_text(label: object) -> str:
    """Return a label as one text: several names sorted, with ``;`` between them.

    Names that could not be told apart again that way are written as a JSON list; ``read_names`` reads both.
    """
    if not isinstance(label, tuple):
        return str(label)
    names = sorted(names_in(label))
    text = SEPARATOR.join(names)
    is_plain = _listed(text) is None and (not names or [part.strip() for part in text.split(SEPARATOR)] == names)
    return text if is_plain else json.dumps(names, ensure_ascii=False)


def read_names(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Return the names that stand in a text, sorted; blanks around them do not count.

    Args:
        text: Names with separators between them, or a JSON list of names; a blank text holds none.
        separator: What stands between names.

    Raises:
        ValueError: If a name is empty or stands there twice; the text says which.
    """
    names = _listed(text)
    if names is None:
        names = [part.strip() for part in text.split(separator)] if text.strip() else []
    if fault := fault_in(names):
        raise ValueError(f"{fault} in {text!r}")
    return tuple(sorted(names))


def fault_in(names: Sequence[str]) -> str:
    """Return what is wrong with the names of a sample, empty if nothing is."""
    if not all(name.strip() for name in names):
        return "an empty name"
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    return "" if twice is None else f"{twice!r} twice"


def multi_hot(labels: Sequence[object], places: Mapping[str, int]) -> NDArray[np.uint8]:
    """Return an array ``(samples, classes)`` of 0 and 1.

    Args:
        labels: The label of each sample.
        places: Class name -> its column.
    """
    array = np.zeros((len(labels), len(places)), dtype=np.uint8)
    for row, label in enumerate(labels):
        array[row, [places[name] for name in names_in(label)]] = 1
    return array


def _listed(text: str) -> list[str] | None:
    """Return the names of a JSON list, None if the text is none."""
    if not text.strip().startswith("["):
        return None
    try:
        names: list[str] = json.loads(text)
    except json.JSONDecodeError:
        return None
    return names if all(isinstance(name, str) for name in names) else None
