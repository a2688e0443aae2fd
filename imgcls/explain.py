"""From an exception to the lines that a user reads, and the exit code."""

import importlib
import inspect
import re
from argparse import ArgumentError

from lightning.fabric.utilities.exceptions import MisconfigurationException

from imgcls.errors import ImageError, ImgclsError, did_you_mean, first_line

# what jsonargparse says around the one line that tells
_NOISE = (
    "Does not validate against any",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Given value",
    "Not a valid subclass of",
    "Subclass types expect",
    "a class path (str)",
    "a dict with",
    "a dict without",
)


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to print for an error, and the exit code."""
    for cause in _causes(error):
        if isinstance(cause, ImgclsError):
            return _of_worker(str(cause)), cause.exit_code
        if isinstance(cause, ImageError):
            return f"{_of_worker(str(cause))}; remove or replace the file", 2
    if isinstance(error, ArgumentError):
        return _of_parser(str(error)), 2
    if isinstance(error, MisconfigurationException):
        return first_line(error), 2
    return f"the run failed: {type(error).__name__}: {_of_worker(str(error))} (--debug shows where)", 1


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _of_worker(text: str) -> str:
    """Take the error out of the report that a loader worker sends."""
    if "Original Traceback" not in text:
        return text
    last = text.strip().splitlines()[-1]
    return last.partition(": ")[2] or last


def _of_parser(text: str) -> str:
    """Keep of jsonargparse's nested report the key and the innermost reasons."""
    key, class_path = "", ""
    reasons: list[str] = []
    for line in text.splitlines():
        line = line.strip().removeprefix("- ")
        if match := re.match(r'Parser key "([^"]+)":', line):
            key = _join(key, match[1])
        elif match := re.match(r"Problem with given class_path '([^']+)':", line):
            class_path = match[1]
            key = key if _is_dataclass(class_path) else _join(key, "init_args")
        elif line and not line.startswith(_NOISE):
            reasons.append(_readable(line, class_path))
    given = re.search(r"Given value: (?!NestedArg)(.{1,60})$", text, re.MULTILINE)
    reasons = list(dict.fromkeys(reasons)) or [text.splitlines()[0]]
    found = f" (given: {given[1]})" if given and any("expected" in reason for reason in reasons) else ""
    return f"{key}: {'; or '.join(reasons)}{found}" if key else "; ".join(reasons)


def _readable(line: str, class_path: str) -> str:
    if match := re.match(r"Option '([^']+)' is not accepted", line):
        return f"{class_path} has no argument {match[1]!r}{did_you_mean(match[1], _arguments(class_path))}"
    if match := re.match(r"module '([^']+)' has no attribute '([^']+)'", line):
        return f"{line}{did_you_mean(match[2], dir(importlib.import_module(match[1])))}"
    if "pytorch_lightning." in line:
        return f"{line}; the package's name is lightning.pytorch now: write lightning.pytorch. for pytorch_lightning."
    line = re.sub(r"Expected a typing\.Literal\[([^\]]*)\]", r"expected one of \1", line)
    line = re.sub(r"Expected an? <class '([^']+)'>", r"expected \1", line)
    return re.sub(r"\. Got value: (.*)", r", not \1", line)


def _arguments(class_path: str) -> list[str]:
    found = _find(class_path)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _is_dataclass(class_path: str) -> bool:
    return hasattr(_find(class_path), "__dataclass_fields__")


def _find(class_path: str) -> object:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name, None) if module else None


def _join(before: str, key: str) -> str:
    return f"{before}.{key}" if before else key
