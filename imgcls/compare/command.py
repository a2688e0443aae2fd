"""The command ``compare``: read run folders, print which differ, and write a page."""

import json
from argparse import ArgumentParser
from pathlib import Path

from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.compare.comparison import compare
from imgcls.compare.page import render
from imgcls.compare.record import as_record
from imgcls.compare.terminal import conclusions, print_tables
from imgcls.errors import ConfigError
from imgcls.results.run import Run, read_run
from imgcls.runtime.atomic_files import write_text
from imgcls.runtime.output_file import check_output, check_page, refuse_existing
from imgcls.runtime.plain_options import parse_options


def run_compare(arguments: list[str]) -> str:
    """Compare runs; print their scores, and write the files that are asked for.

    Args:
        arguments: The command line after ``compare``.

    Returns:
        Which runs differ, and what was written.

    Raises:
        ConfigError: If the runs cannot be compared, or a file cannot be written.
        SystemExit: After the help, or with 2 for a bad command line.
    """
    given = parse_options(_parser(), arguments)
    if given.output is not None:
        check_page(given.output, overwrite=given.overwrite)
    if given.json is not None:
        check_output(given.json, "--json", "compare.json")
        if not given.overwrite:
            refuse_existing(Path(given.json).expanduser(), "--json")
    found = compare(_runs(given.runs))
    print_tables(found)
    text = conclusions(found)
    if given.output is not None:
        write_text(Path(given.output).expanduser(), render(found))
        text += f"\nPage: {given.output}"
    if given.json is not None:
        write_text(Path(given.json).expanduser(), json.dumps(as_record(found), indent=2) + "\n")
    return text


def _runs(names: list[str]) -> list[Run]:
    """Return the runs of folders or checkpoints."""
    if len(names) < 2:
        raise ConfigError("compare needs two runs or more; type: imgcls compare RUN RUN")
    folders = [_folder(Path(name).expanduser()) for name in names]
    for index, folder in enumerate(folders):
        if folder.resolve() in [each.resolve() for each in folders[:index]]:
            raise ConfigError(f"{names[index]} is given twice; leave one out")
    return [read_run(folder) for folder in folders]


def _folder(path: Path) -> Path:
    folder = run_folder_of(path) if path.is_file() else path
    if folder is None:
        raise ConfigError(f"{path} is not in a run folder; give the folder of a run")
    return folder


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "imgcls compare",
        description="Tell which of several runs are better than others by more than chance, on the images that all of "
        "them were evaluated on. Runs whose configurations differ in the seed alone are seeds of one configuration.",
        epilog="Example: imgcls compare runs/a/version_0 runs/b/version_0 --output ab.html",
        add_help=False,
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="Folder of a run, or of one of its evaluations/N.",
    )
    parser.add_argument("--output", metavar="FILE.html", help="Page to write.")
    parser.add_argument("--json", metavar="FILE.json", help="File to write with all figures.")
    parser.add_argument("--overwrite", action="store_true", help="Replace existing files.")
    parser.add_argument("-h", "--help", action="help", help="Show this help.")
    return parser
