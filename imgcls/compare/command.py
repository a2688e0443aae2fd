"""The command ``compare``: read run folders, print which differ, and write a page."""

import json
from argparse import ArgumentParser
from pathlib import Path

from imgcls.compare.comparison import compare
from imgcls.compare.json_record import as_record
from imgcls.compare.page import render
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
    runs = [read_run(Path(name).expanduser()) for name in names]
    folders = [run.folder.resolve() for run in runs]
    for index, folder in enumerate(folders):
        if folder in folders[:index]:
            raise ConfigError(f"{names[index]} is given twice; leave one out")
    return runs


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "imgcls compare",
        description="Tell which of several runs are better than others by more than chance, on the images that all of "
        "them were evaluated on. Runs whose configurations differ in the seed alone are seeds of one configuration.",
        epilog="Example: imgcls compare runs/a/version_0 runs/b/version_0 --output ab.html",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="folder of a run or of one of its evaluations/N, or a checkpoint"
    )
    parser.add_argument("--output", metavar="FILE.html", help="page to write")
    parser.add_argument("--json", metavar="FILE.json", help="file to write with all figures")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser
