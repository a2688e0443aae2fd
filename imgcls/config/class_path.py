"""Classes given in a YAML as ``{class_path, init_args}``: find the class and check the names of its arguments."""

import importlib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from imgcls.errors import ConfigError, did_you_mean, first_line

Spec = dict[str, Any]


def class_path_of(spec: Any, where: str) -> str:
    """Return the class path of a spec.

    Raises:
        ConfigError: If it is no mapping with a ``class_path``, or holds another key than ``init_args`` beside it.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise ConfigError(
            f"{where}: a class is given as {{class_path: package.Class, init_args: ...}}, not as {spec!r}"
        )
    if unknown := sorted(set(spec) - {"class_path", "init_args"}):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r} beside 'class_path' and 'init_args'")
    return str(spec["class_path"])


def find_class(class_path: str, package: str, where: str) -> Callable[..., Any]:
    """Import a class or function.

    Args:
        class_path: Its dotted path; a bare name is looked for in ``package``.
        package: The package of bare names.
        where: The config key, for messages.

    Raises:
        ConfigError: If there is none.
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
    """Refuse an argument that a class does not take.

    Raises:
        ConfigError: Names the argument and what is near it.
    """
    for name in given:
        if name not in parameters:
            hint = did_you_mean(name, parameters) or f"; it takes {', '.join(parameters)}"
            raise ConfigError(f"{where}: has no argument {name!r}{hint}")
