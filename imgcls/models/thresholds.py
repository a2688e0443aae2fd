"""The probabilities above which an image is said to be of a class, where it may be of several."""

from collections.abc import Sequence

from imgcls.errors import ConfigError, known_names

Threshold = float | list[float] | dict[str, float]

DEFAULT = 0.5
_KEY = "model.init_args.threshold"


def check_threshold(threshold: Threshold | None) -> None:
    """Refuse what is no probability.

    Raises:
        ConfigError: Names it.
    """
    values = threshold.values() if isinstance(threshold, dict) else threshold
    for value in [values] if isinstance(values, (int, float)) else values or []:
        if not 0 <= value <= 1:
            raise ConfigError(f"{_KEY}: {value}; a threshold is a probability, 0 to 1")


def thresholds_of(threshold: Threshold | None, class_names: Sequence[str]) -> list[float]:
    """Return the threshold of each class.

    Args:
        threshold: One for all classes, one for each in their order, or by name (of the others it is 0.5); None for 0.5.
        class_names: The classes.

    Raises:
        ConfigError: If there are more or fewer than classes, or one is of a class that there is not.
    """
    if isinstance(threshold, dict):
        for name in threshold:
            if name not in class_names:
                raise ConfigError(f"{_KEY}: there is no class {name!r}{known_names(name, class_names)}")
        return [float(threshold.get(name, DEFAULT)) for name in class_names]
    if isinstance(threshold, (list, tuple)):
        if len(threshold) != len(class_names):
            raise ConfigError(
                f"{_KEY}: {len(threshold)} for {len(class_names)} classes; give one for each, in the order of the "
                "classes, or by name: {class: threshold}"
            )
        return list(map(float, threshold))
    return [DEFAULT if threshold is None else float(threshold)] * len(class_names)
