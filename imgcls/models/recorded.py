"""The arguments of a model that a checkpoint records: plain values, checked by the constructor's annotations."""

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from imgcls.errors import ConfigError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def recorded_arguments(kind: type, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments that a checkpoint records.

    Args:
        kind: The class of the model.
        recorded: The checkpoint's hyper-parameters; those that the constructor has no name for are left out.

    Raises:
        ConfigError: If a value is of another type than the constructor's annotation says.
    """
    hints = _arguments(kind)
    known = {name: recorded[name] for name in hints if name in recorded}
    fields: dict[str, Any] = {name: (hints[name], ...) for name in known}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    shape = create_model(kind.__name__, __config__=config, **fields)
    try:
        made = shape.model_validate_json(json.dumps(known, default=repr))  # a strict model makes sections of JSON alone
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the checkpoint's hyper_parameters.{place}: {first['msg'].lower()}") from error
    return {name: getattr(made, name) for name in known}


def _arguments(kind: type) -> dict[str, Any]:
    """Return the type of each argument that a constructor names, or hands on to that of a base class by ``**``."""
    found: dict[str, Any] = {}
    for base in (base for base in kind.__mro__ if "__init__" in vars(base)):
        constructor = vars(base)["__init__"]
        _, *parameters = inspect.signature(constructor).parameters.values()  # without self
        hints = get_type_hints(constructor)
        named = [parameter.name for parameter in parameters if parameter.kind not in _VARIADIC]
        found = {name: hints.get(name, Any) for name in named} | found
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
