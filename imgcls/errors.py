"""The errors that imgcls raises on purpose; each text names what was found, what would be right and what to type."""


class ImgclsError(Exception):
    """An expected error: printed as its text alone, without a traceback."""

    exit_code = 1


class ConfigError(ImgclsError, ValueError):
    """A configuration, argument, file or data set that cannot be used (exit code 2)."""

    exit_code = 2


class RunError(ImgclsError, RuntimeError):
    """A run that started and could not be finished (exit code 1)."""


class ImageError(ValueError):
    """An image that cannot be used; its text is ``<path>: <reason>``."""
