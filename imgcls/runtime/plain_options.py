"""The command line of the commands that need no configuration: ``report``, ``compare`` and ``init``."""

import re
from argparse import ArgumentParser, Namespace

from imgcls.errors import ConfigError, did_you_mean


def parse_options(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse a command line, and name the option that an unknown one may have meant.

    Raises:
        ConfigError: If there is an unknown option, or a value too many.
        SystemExit: After the help, or with 2 for a value that is missing or has the wrong type.
    """
    given, unknown = parser.parse_known_args(arguments)
    if not unknown:
        return given
    name = unknown[0].partition("=")[0]
    if not name.startswith("-"):
        raise ConfigError(f"{parser.prog}: {name!r} is not expected; for the options: {parser.prog} --help")
    known = re.findall(r"--[\w.]+", parser.format_usage())
    raise ConfigError(f"{parser.prog}: unknown option {name}{did_you_mean(name, known)}")
