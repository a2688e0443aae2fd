"""Build transforms from the configuration's lists of ``{class_path, init_args}``."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from imgcls.config.class_path import Spec, check_arguments, class_path_of, find_class
from imgcls.data.transforms.pipeline import Pipeline, Transform, as_array, is_normalize, reason_of
from imgcls.errors import ConfigError
from imgcls.types import Normalization

NORMALIZE = "Normalize"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def build_pipeline(specs: list[Spec], where: str) -> Pipeline:
    """Build a pipeline from a list of specs at the config key ``where``.

    Raises:
        ConfigError: Names the transform that cannot be built.
    """
    keys = [f"{where}[{number}]" for number in range(len(specs))]
    named = {_name(spec, key): build_transform(spec, key) for spec, key in zip(specs, keys, strict=True)}
    return Pipeline(named, where)


def build_transform(spec: Spec, where: str) -> Transform:
    """Build one transform from its spec.

    Raises:
        ConfigError: If the class, an argument or a value is wrong.
    """
    class_path = class_path_of(spec, where)
    name = f"{where} {class_path}"
    given = spec.get("init_args") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{name}: init_args must be a mapping, got {given!r}")
    target = find_class(class_path, "albumentations", name)
    arguments = {key: _build_nested(value, f"{where}.{key}") for key, value in given.items()}
    _check_arguments(target, arguments, name)
    if inspect.isfunction(target):
        return _as_transform(partial(target, **arguments), name)
    try:
        with np.errstate(divide="ignore"):  # by a Normalize with std 0, which is refused later
            transform = target(**arguments)
    except Exception as error:
        raise ConfigError(f"{name}: {reason_of(error)}") from error
    if isinstance(transform, (A.BasicTransform, A.BaseCompose)):
        return transform
    if callable(transform):
        return _as_transform(transform, name)
    raise ConfigError(f"{name}: must be an Albumentations transform or callable as f(image=array)")


def find_normalization(specs: list[Spec] | None, where: str) -> Normalization | None:
    """Return the mean and std of the list's ``albumentations.Normalize``, None if it has none.

    Raises:
        ConfigError: If it has two, or one that depends on the image.
    """
    found = []
    for number, spec in enumerate(specs or []):
        name = _name(spec, f"{where}[{number}]")
        if name.endswith(NORMALIZE) and is_normalize(transform := build_transform(spec, f"{where}[{number}]")):
            found.append((name, transform))
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(f"{found[1][0]}: the list already normalises with {found[0][0]}; remove one of them")
    [(name, transform)] = found
    if transform.normalization != "standard" or transform.p < 1:
        raise ConfigError(
            f"{name}: must have normalization 'standard' and p 1, so that the model can record it, got "
            f"{transform.normalization!r} and {transform.p}"
        )
    if {np.size(transform.mean), np.size(transform.std)} - {1, 3}:
        raise ConfigError(f"{name}: mean and std must have one or three values")
    if np.min(transform.std) <= 0:
        raise ConfigError(f"{name}: std must be above 0, got {transform.std}")
    scale = transform.max_pixel_value / 255
    mean = np.broadcast_to(np.asarray(transform.mean) * scale, 3)
    std = np.broadcast_to(np.asarray(transform.std) * scale, 3)
    return Normalization(tuple(map(float, mean)), tuple(map(float, std)))


def _name(spec: Spec, where: str) -> str:
    return f"{where} {class_path_of(spec, where)}"


def _build_nested(value: Any, where: str) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return build_transform(value, where)
    if isinstance(value, (list, tuple)):
        return [_build_nested(item, f"{where}[{number}]") for number, item in enumerate(value)]
    return value


def _check_arguments(target: Callable[..., Any], given: dict[str, Any], name: str) -> None:
    try:
        parameters = dict(inspect.signature(target).parameters)
    except ValueError:  # some classes written in C have no signature
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        check_arguments(given, parameters, name)
    for key, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in _VARIADIC
        if not optional and key not in {*given, "image"}:
            raise ConfigError(f"{name}: needs the argument {key!r}")


def _as_transform(function: Callable[..., Any], name: str) -> A.Lambda:
    return A.Lambda(image=partial(_call, function, name), p=1.0)


def _call(function: Callable[..., Any], name: str, image: NDArray[Any], **_: object) -> NDArray[Any]:
    result = function(image=image)
    if not isinstance(result, dict) or "image" not in result:
        raise ConfigError(f"{name}: must return {{'image': array}}, got {type(result).__name__}")
    return as_array(result["image"])
