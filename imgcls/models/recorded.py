"""The arguments of a model that a checkpoint records: plain values, checked by the constructor's annotations."""

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from imgcls.errors import ConfigError


def recorded_arguments(kind: type, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments that a checkpoint records.

    Args:
        kind: The class of the model.
        recorded: The checkpoint's hyper-parameters; those that the constructor has no name for are left out.

    Raises:
        ConfigError: If a value is of another type than the constructor's annotation says.
    """
    parameters = inspect.signature(kind).parameters
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    known = {name: recorded[name] for name in parameters if name in recorded}
    fields: dict[str, Any] = {name: (hints.get(name, Any), ...) for name in known}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    shape = create_model(kind.__name__, __config__=config, **fields)
    try:
        made = shape.model_validate_json(json.dumps(known, default=repr))  # a strict model makes sections of JSON alone
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the checkpoint's hyper_parameters.{place}: {first['msg'].lower()}") from error
    return {name: getattr(made, name) for name in known}
