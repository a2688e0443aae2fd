"""The values that are taken from a checkpoint for an argument: numbers of a bounded size, and words."""

import math
import re
from typing import Any

_WORD = re.compile(r"[\w-]{0,40}")


def is_word(value: Any) -> bool:
    """Whether a value is the name of a choice, and neither a path nor a text with syntax."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def is_plain(value: Any, largest: int) -> bool:
    """Whether a value is null, a word, or a finite number from ``-largest`` to ``largest``."""
    if value is None or is_word(value):
        return True
    return isinstance(value, (bool, int, float)) and math.isfinite(value) and abs(value) <= largest
