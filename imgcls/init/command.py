"""The command ``init``: write a configuration for a folder of photos."""

import shlex
from argparse import ArgumentParser
from pathlib import Path

from imgcls.errors import ConfigError
from imgcls.init.config import config_text
from imgcls.init.folder import read_folder
from imgcls.init.machine import this_machine
from imgcls.runtime.atomic_files import write_text
from imgcls.runtime.output_file import check_output
from imgcls.runtime.plain_options import parse_options

DEFAULT = "imgcls.yaml"


def init(arguments: list[str]) -> str:
    """Write the configuration; return what was found and written, and the next command to type.

    Raises:
        ConfigError: If the folder cannot be used, or the file exists.
        SystemExit: After the help, or with 2 for a bad command line.
    """
    given = parse_options(_parser(), arguments)
    check_output(given.output, "--output", DEFAULT)
    file = Path(given.output).expanduser()
    if file.exists() and not given.overwrite:
        raise ConfigError(f"{file} exists; add --overwrite to replace it, or --output FILE.yaml to write another")
    folder, machine = read_folder(given.photos), this_machine()
    write_text(file, config_text(given.photos, folder, machine, given.model))
    counts = ", ".join(f"{count} {split}" for split, count in folder.counts.items())
    return "\n".join(
        [
            f"{len(folder.classes)} classes; images: {counts}; typically {folder.size[0]} x {folder.size[1]} pixels",
            f"This machine: {machine}",
            f"Wrote {file}; its comments give the reasons. To train:",
            f"imgcls fit --config {shlex.quote(str(file))}",
        ]
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "imgcls init",
        description="Write a short commented configuration, fitted to a folder of photos and to this machine.",
        epilog="Example: imgcls init photos/ && imgcls fit --config imgcls.yaml",
    )
    parser.add_argument(
        "photos", metavar="PHOTOS", help="folder with one sub-folder per class, or with train/, val/, test/ of such"
    )
    parser.add_argument("--output", default=DEFAULT, metavar="FILE.yaml", help="file to write (default: imgcls.yaml)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument(
        "--model", "--model.model_name", metavar="NAME", help="Hub id or folder of the model (default: by machine)"
    )
    return parser
