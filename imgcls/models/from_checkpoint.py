"""Check the constructor arguments of a model in a checkpoint against the constructor's annotations."""

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from imgcls.errors import ConfigError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def recorded_arguments(kind: type, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a checkpoint that are constructor arguments of a model class.

    Raises:
        ConfigError: If a value does not match the annotation of its argument.
    """
    hints = _arguments(kind)
    known = {name: recorded[name] for name in hints if name in recorded}
    fields: dict[str, Any] = {name: (hints[name], ...) for name in known}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    shape = create_model(kind.__name__, __config__=config, **fields)
    try:
        # from JSON, since strict mode does not build dataclasses from dicts
        made = shape.model_validate_json(json.dumps(known, default=repr))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the checkpoint's hyper_parameters.{key}: {first['msg'].lower()}") from error
    return {name: getattr(made, name) for name in known}


def _arguments(kind: type) -> dict[str, Any]:
    """Return argument -> type of a constructor, including those passed to base classes by ``**kwargs``."""
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
