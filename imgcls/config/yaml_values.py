"""Write and read values of a configuration in the YAML of jsonargparse."""

import re
from typing import Any

import yaml
from jsonargparse import ArgumentParser


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, for the strings of jsonargparse 4.53 and for its reading of numbers."""


# a default may be an enum that is a string, as the interval of Lightning's Timer is; PyYAML 6.0 writes str alone
_Dumper.add_multi_representer(str, yaml.SafeDumper.represent_str)
# jsonargparse reads 1e3 as a number, as YAML 1.2 does; PyYAML 6.0 is YAML 1.1 and writes such a text without quotes
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9_.]+e[-+]?[0-9]+$", re.I), None)


def dump_yaml(config: Any) -> str:
    """Return a configuration of plain values as YAML, keys in their order."""
    return yaml.dump(config, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def read_value(text: str, kind: Any = Any) -> Any:
    """Return the value of a text, as the parser reads an option of a type.

    Raises:
        ArgumentError: If it is not of that type.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    return parser.parse_args([f"--value={text}"]).value
