"""Decision thresholds of multi-label models."""

from collections.abc import Sequence

from imgcls.errors import ConfigError, known_names

Threshold = float | list[float] | dict[str, float]

DEFAULT = 0.5
_KEY = "model.init_args.threshold"


def check_threshold(threshold: Threshold | None) -> None:
    """Check that all thresholds are probabilities.

    Raises:
        ConfigError: Names the first that is not.
    """
    values = threshold.values() if isinstance(threshold, dict) else threshold
    for value in [values] if isinstance(values, (int, float)) else values or []:
        if not 0 <= value <= 1:
            raise ConfigError(f"{_KEY} must be a probability from 0 to 1, got {value}")


def thresholds_of(threshold: Threshold | None, class_names: Sequence[str]) -> list[float]:
    """Return the threshold of each class.

    Args:
        threshold: One for all classes, a list in the order of the classes, or class name -> threshold; 0.5 for the
            others and for None.
        class_names: The classes.

    Raises:
        ConfigError: If the number of thresholds or a class name does not match.
    """
    if isinstance(threshold, dict):
        for name in threshold:
            if name not in class_names:
                raise ConfigError(f"{_KEY}: there is no class {name!r}{known_names(name, class_names)}")
        return [float(threshold.get(name, DEFAULT)) for name in class_names]
    if isinstance(threshold, (list, tuple)):
        if len(threshold) != len(class_names):
            raise ConfigError(
                f"{_KEY} must have one value for each of the {len(class_names)} classes, in their order, or be "
                f"{{class: threshold}}, got {len(threshold)} values"
            )
        return list(map(float, threshold))
    return [DEFAULT if threshold is None else float(threshold)] * len(class_names)
