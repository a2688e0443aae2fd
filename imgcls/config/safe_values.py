"""Argument values that are accepted from a checkpoint: bounded numbers and names of choices."""

import math
import re
from typing import Any

_WORD = re.compile(r"[\w-]{0,40}")


def is_word(value: Any) -> bool:
    """Whether a value can be the name of a choice, as opposed to a path or an expression."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def is_safe_value(value: Any, largest: int) -> bool:
    """Whether a value is None, a word, or a finite number between ``-largest`` and ``largest``."""
    if value is None or is_word(value):
        return True
    return isinstance(value, (bool, int, float)) and math.isfinite(value) and abs(value) <= largest
