"""Classes given as ``{class_path, init_args}``: import the class and check the names of its arguments."""

import importlib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from imgcls.errors import ConfigError, did_you_mean, first_line

Spec = dict[str, Any]


def class_path_of(spec: Any, where: str) -> str:
    """Return the class path of a spec.

    Raises:
        ConfigError: If it is not a mapping with ``class_path`` and, optionally, ``init_args``.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise ConfigError(f"{where}: expected {{class_path: package.Class, init_args: ...}}, got {spec!r}")
    if unknown := sorted(set(spec) - {"class_path", "init_args"}):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; expected 'class_path' and 'init_args'")
    return str(spec["class_path"])


def find_class(class_path: str, package: str, where: str) -> Callable[..., Any]:
    """Import a class or function by its dotted path; a bare name is looked up in ``package``.

    ``where`` is the config key, for messages.

    Raises:
        ConfigError: If the import fails or there is no such class.
    """
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name or package)
    except ImportError as error:
        raise ConfigError(f"{where}: cannot import {module_name!r}: {first_line(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigError(f"{where}: {module.__name__!r} has no {name!r}{did_you_mean(name, dir(module))}")
    return found  # type: ignore[no-any-return]


def check_arguments(given: Iterable[str], parameters: Collection[str], where: str) -> None:
    """Refuse arguments that a class does not have.

    Raises:
        ConfigError: Names the argument and the closest one.
    """
    for name in given:
        if name not in parameters:
            hint = did_you_mean(name, parameters) or f"; it takes {', '.join(parameters)}"
            raise ConfigError(f"{where}: has no argument {name!r}{hint}")
