"""From an exception to the lines that a user reads, and the exit code."""

import inspect
import re
import sys
from argparse import ArgumentError
from typing import NamedTuple

from lightning.fabric.utilities.exceptions import MisconfigurationException

from imgcls.errors import ImageError, ImgclsError, causes, did_you_mean, first_line, join_keys, known_names

_REMEDY = "remove or replace the file, or leave such files out: --data.on_bad_image skip"
_SMALLER = (
    "lower data.batch_size, and raise trainer.accumulate_grad_batches by as much, for steps of as many images as before"
)
_OUT_OF_MEMORY = ("MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory")
_NOT_OF_CLASS = r"Not a valid subclass of (\w+)\. Got value: (.*)"
_OF_UNION = "Does not validate against any"

# what jsonargparse says around the one line that tells
_NOISE = (
    _OF_UNION,
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
    text, code = _known(error)
    return (text, code) if text else (f"the run failed: {_unknown(error)} (--debug shows where)", 1)


def reason(error: BaseException) -> str:
    """Return one line that says what went wrong, to be read long after."""
    text, _ = _known(error)
    return next(iter((text or _unknown(error)).splitlines()), "")


def _known(error: BaseException) -> tuple[str, int]:
    """Return the text and exit code of an error that was to be expected, an empty text for any other."""
    for cause in causes(error):
        if isinstance(cause, ImgclsError):
            return _of_worker(str(cause)), cause.exit_code
        if isinstance(cause, ImageError):
            return f"{_of_worker(str(cause))}; {_REMEDY}", 2
        if _is_out_of_memory(cause):
            return f"{first_line(cause)}; {_SMALLER}", 1
    # an object that refuses its arguments when it is made is reported as a value of none of the types
    if isinstance(error, ArgumentError) or (isinstance(error, ValueError) and str(error).startswith(_OF_UNION)):
        return _of_parser(str(error)), 2
    if isinstance(error, MisconfigurationException):
        return first_line(error), 2
    return "", 1


def _is_out_of_memory(error: BaseException) -> bool:
    # by name: this module is imported where torch is not
    return type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _OUT_OF_MEMORY)


def _unknown(error: BaseException) -> str:
    return f"{type(error).__name__}: {_of_worker(str(error))}"


def _of_worker(text: str) -> str:
    """Take the error out of the report that a loader worker sends."""
    if "Original Traceback" not in text:
        return text
    last = text.strip().splitlines()[-1]
    return last.partition(": ")[2] or last


class _Place(NamedTuple):
    """A line of jsonargparse's report under which others stand, further in."""

    indent: int
    key: str
    class_path: str


class _Reason(NamedTuple):
    depth: int
    key: str
    text: str


def _of_parser(text: str) -> str:
    """Keep of jsonargparse's nested report the innermost reasons and their key."""
    found = _reasons(text)
    if not found:
        return _of_another_kind(text)
    depth = max(reason.depth for reason in found)
    inner = [reason for reason in found if reason.depth == depth]
    reasons = list(dict.fromkeys(reason.text for reason in inner))
    value = re.search(r"Given value: (?!NestedArg)(.{1,60})$", text, re.MULTILINE)
    given = f" (given: {value[1]})" if value and any("expected" in reason for reason in reasons) else ""
    key = inner[0].key
    return f"{key}: {'; or '.join(reasons)}{given}" if key else "; ".join(reasons)


def _of_another_kind(text: str) -> str:
    """Say what stands where a class, or a mapping of arguments, should."""
    key, of_class = (re.search(pattern, text) for pattern in (r'Parser key "([^"]+)":', _NOT_OF_CLASS))
    if key is None or of_class is None:
        return text.partition("\n")[0]
    return f"{key[1]}: {of_class[2]} is no {of_class[1]}; give a mapping with its arguments"


def _reasons(text: str) -> list[_Reason]:
    above: list[_Place] = []
    found: list[_Reason] = []
    for line in filter(str.strip, text.splitlines()):
        words = line.strip().removeprefix("- ")
        indent = len(line) - len(line.lstrip())
        above = [place for place in above if place.indent < indent]
        key, class_path = (above[-1].key, above[-1].class_path) if above else ("", "")
        if match := re.match(r'Parser key "([^"]+)":', words):
            above.append(_Place(indent, join_keys(key, match[1]), class_path))
        elif match := re.match(r"Problem with given class_path '([^']+)':", words):
            above.append(_Place(indent, join_keys(key, "init_args") if _has_init_args(match[1]) else key, match[1]))
        elif not words.startswith(_NOISE):
            found.append(_Reason(len(above), key, _readable(words, class_path)))
    return found


def _readable(line: str, class_path: str) -> str:
    if match := re.search(r"\bpytorch_lightning\.[\w.]+", f"{class_path} {line}"):
        ours = match[0].replace("pytorch_lightning", "lightning.pytorch")
        return f"{match[0]} is of another package than the Trainer; write {ours}"
    if match := re.match(r"Option '([^']+)' is not accepted", line):
        return f"{class_path} has no argument {match[1]!r}{known_names(match[1], _arguments(class_path))}"
    if match := re.match(r"module '([^']+)' has no attribute '([^']+)'", line):
        return f"{line}{did_you_mean(match[2], dir(sys.modules.get(match[1])))}"
    line = re.sub(r"Expected a typing\.Literal\[([^\]]*)\]", r"expected one of \1", line)
    line = re.sub(r"Expected an? <class '([^']+)'>", r"expected \1", line)
    return re.sub(r"\. Got value: (.*)", r", not \1", line)


def _arguments(class_path: str) -> list[str]:
    found = _find(class_path)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _has_init_args(class_path: str) -> bool:
    found = _find(class_path)
    return found is not None and not hasattr(found, "__dataclass_fields__")


def _find(class_path: str) -> object:
    """Return a class that the parser has imported; one that it could not import is not tried again."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)
