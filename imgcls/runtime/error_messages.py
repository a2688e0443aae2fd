"""Translate an exception into the message for the user and the exit code."""

import inspect
import re
import sys
from argparse import ArgumentError
from typing import NamedTuple

from lightning.fabric.utilities.exceptions import MisconfigurationException
from pydantic import ValidationError

from imgcls.errors import ImageError, ImgclsError, causes, did_you_mean, first_line, join_keys, known_names

_REMEDY = "remove or replace the file, or leave such files out: --data.on_bad_image skip"
_SMALLER = "lower data.batch_size and raise trainer.accumulate_grad_batches by the same factor to keep the global batch"
_OUT_OF_MEMORY = ("MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory")
_NOT_OF_CLASS = r"Not a valid subclass of (\w+)\. Got value: (.*)"
_OF_UNION = "Does not validate against any"
_SECTIONS = ("model.", "experiment", "optuna")  # titles of our pydantic dataclasses: the key of the section

_KEYS = {"loggers": "trainer.logger", "callbacks": "trainer.callbacks"}  # package of a class -> its key

# lines of jsonargparse's reports that carry no reason
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
    """Return the message and exit code of an error."""
    text, code = known(error)
    return (text, code) if text else (f"the run failed: {_unknown(error)} (--debug shows where)", 1)


def reason(error: BaseException) -> str:
    """Return one line with the cause, as recorded for a failed trial."""
    text, _ = known(error)
    return next(iter((text or _unknown(error)).splitlines()), "")


def known(error: BaseException) -> tuple[str, int]:
    """Return the message and exit code of an expected error; an empty message for any other."""
    for cause in causes(error):
        if isinstance(cause, ImgclsError):
            return _of_worker(str(cause)), cause.exit_code
        if isinstance(cause, ValidationError) and cause.title.startswith(_SECTIONS):
            return describe_invalid(cause), 2
        if isinstance(cause, ImageError):
            return f"{_of_worker(str(cause))}; {_REMEDY}", 2
        if _is_out_of_memory(cause):
            return f"{first_line(cause)}; {_SMALLER}", 1
    # jsonargparse reports a constructor's ValueError as a value that matches none of the types
    if isinstance(error, ArgumentError) or (isinstance(error, ValueError) and str(error).startswith(_OF_UNION)):
        return _of_parser(str(error)), 2
    if isinstance(error, MisconfigurationException):
        return first_line(error), 2
    return "", 1


def describe_invalid(error: ValidationError) -> str:
    """Return "KEY must be at least 1, got 0" for the first error of a section of the configuration."""
    first = error.errors()[0]
    if first["type"] == "value_error":  # of a ``__post_init__``, whose message names the key
        return str(first["ctx"]["error"])
    key = ".".join([error.title, *map(str, first["loc"])])
    rule = first["msg"].replace("Input should", "must", 1)
    for long, short in (("greater than or equal to", "at least"), ("less than or equal to", "at most")):
        rule = rule.replace(long, short)
    return f"{key} {rule}, got {first['input']!r}"


def _is_out_of_memory(error: BaseException) -> bool:
    # by name, because torch may not be imported yet
    return type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _OUT_OF_MEMORY)


def _unknown(error: BaseException) -> str:
    return f"{type(error).__name__}: {_of_worker(str(error))}"


def _of_worker(text: str) -> str:
    """Extract the error from the traceback that a loader worker sends as text."""
    if "Original Traceback" not in text:
        return text
    last = text.strip().splitlines()[-1]
    return last.partition(": ")[2] or last


class _Parent(NamedTuple):
    """A line of jsonargparse's report that has indented lines below it."""

    indent: int
    key: str
    class_path: str


class _Reason(NamedTuple):
    depth: int
    key: str
    text: str


def _of_parser(text: str) -> str:
    """Return the innermost reasons of jsonargparse's nested report, with their key."""
    found = _reasons(text)
    if not found:
        return _of_wrong_type(text)
    depth = max(reason.depth for reason in found)
    inner = [reason for reason in found if reason.depth == depth]
    reasons = list(dict.fromkeys(reason.text for reason in inner))
    value = re.search(r"Given value: (?!NestedArg)(.{1,60})$", text, re.MULTILINE)
    given = f" (given: {value[1]})" if value and any("expected" in reason for reason in reasons) else ""
    key = inner[0].key
    return f"{key}: {'; or '.join(reasons)}{given}" if key else "; ".join(reasons)


def _of_wrong_type(text: str) -> str:
    """Return the message for a value where a class or a mapping of arguments is expected."""
    key, of_class = (re.search(pattern, text) for pattern in (r'Parser key "([^"]+)":', _NOT_OF_CLASS))
    if key is None or of_class is None:
        return text.partition("\n")[0]
    return f"{key[1]}: {of_class[2]} is no {of_class[1]}; give a mapping with its arguments"


def _reasons(text: str) -> list[_Reason]:
    above: list[_Parent] = []
    found: list[_Reason] = []
    for line in filter(str.strip, text.splitlines()):
        words = line.strip().removeprefix("- ")
        indent = len(line) - len(line.lstrip())
        above = [parent for parent in above if parent.indent < indent]
        key, class_path = (above[-1].key, above[-1].class_path) if above else ("", "")
        if match := re.match(r'Parser key "([^"]+)":', words):
            above.append(_Parent(indent, join_keys(key, match[1]), class_path))
        elif match := re.match(r"Problem with given class_path '([^']+)':", words):
            inner = join_keys(key, "init_args") if _has_init_args(match[1]) else key
            above.append(_Parent(indent, inner if key else _key_of(match[1]), match[1]))
        elif not words.startswith(_NOISE):
            found.append(_Reason(len(above), key, _readable(words, class_path)))
    return found


def _key_of(class_path: str) -> str:
    """Return the key and class of a report without a key: a constructor's error, in jsonargparse 4.53."""
    key = next((key for package, key in _KEYS.items() if f".{package}." in class_path), "")
    return f"{key}: {class_path}" if key else class_path


def _readable(line: str, class_path: str) -> str:
    if match := re.search(r"\bpytorch_lightning\.[\w.]+", f"{class_path} {line}"):
        ours = match[0].replace("pytorch_lightning", "lightning.pytorch")
        return f"{match[0]} belongs to another package than the Trainer; use {ours}"
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
    """Return a class that the parser has already imported, else None."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)
