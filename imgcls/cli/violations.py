"""Find the places where a configuration violates its JSON Schema, within the alternative that was probably meant."""

import json
from collections.abc import Iterable
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind

from imgcls.cli.schema import Schema, kinds
from imgcls.config.yaml_content import Place, scalar

_TYPES: dict[str, set[type]] = {"boolean": {bool}, "integer": {int}, "number": {int, float}, "null": {type(None)}}


class Violation(NamedTuple):
    """A value that its schema refuses.

    Args:
        place: The keys and indices that lead to the value.
        keyword: The keyword of the schema that refuses it.
        value: The value.
        schema: The schema that has the keyword.
        message: The validator's message.
    """

    place: Place
    keyword: str
    value: Any
    schema: Schema
    message: str


class Validator:
    """Validate configurations against a schema.

    Args:
        schema: The schema.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._validator = Draft202012Validator(schema)

    def violations(self, content: Any) -> list[Violation]:
        """Return all violations of a configuration; a text may stand for a number, truth value or null."""
        unicode = json.dumps(content, ensure_ascii=False).encode(errors="replace")  # the name of a file may be none
        return self._violations(self._validator.iter_errors(json.loads(unicode)), content)

    def _violations(self, errors: Iterable[ValidationError], content: Any) -> list[Violation]:
        found: list[Violation] = []
        for error in errors:
            place, kind = tuple(error.instance_path), error.kind
            schema: Schema = reduce(getitem, error.schema_path[:-1], self._schema)  # type: ignore[arg-type]
            violation = Violation(place, kind.name, reduce(getitem, place, content), schema, error.message)
            if isinstance(kind, ValidationErrorKind.AnyOf):
                branches = [self._violations(each, content) for each in kind.context]
                if all(branches):
                    inner = [
                        each for branch in branches for each in branch if each.place != place or not _is_type(each)
                    ]
                    found += inner or [violation]
            elif not (_is_type(violation) and _stands_for_it(violation)):
                found.append(violation)
        return found


def _is_type(violation: Violation) -> bool:
    return violation.keyword in {"type", "enum"}


def _stands_for_it(violation: Violation) -> bool:
    """Whether a text stands for what is expected, as for the parser; or whether JSON has no such number (infinity)."""
    read = scalar(violation.value) if isinstance(violation.value, str) else violation.value
    if violation.keyword == "enum":
        return bool(read in violation.schema["enum"])
    return any(type(read) in _TYPES.get(kind, ()) for kind in kinds(violation.schema))
