"""The command ``report``: write the report of a run again, from the files of its folder."""

from argparse import ArgumentParser
from pathlib import Path

from imgcls.checkpoints.run_folder import newest_best, newest_run
from imgcls.errors import ConfigError, similar_path
from imgcls.runtime.output_file import check_page
from imgcls.runtime.plain_options import parse_options


def report(arguments: list[str]) -> str:
    """Write the report.

    Args:
        arguments: The command line after ``report``.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If the run is not found, has no predictions, or the file cannot be written.
        SystemExit: After the help, or with 2 for a bad command line.
    """
    given = parse_options(_parser(), arguments)
    run = _find_run(given.run, Path(given.runs).expanduser())
    if given.output is not None:
        check_page(given.output, overwrite=given.overwrite)
    from imgcls.report.write import write_report  # takes a second

    return str(write_report(run, None if given.output is None else Path(given.output).expanduser()))


def _find_run(name: str | None, runs: Path) -> Path:
    """Return the path of a run.

    Args:
        name: The run folder, one of its ``evaluations/N``, a checkpoint in it, or ``last``; None for none.
        runs: The folder of all runs.

    Raises:
        ConfigError: If there is no such run; says what to type.
    """
    if name is None:
        newest = newest_best(runs)
        run = newest.parents[1] if newest else "runs/NAME/version_N"
        raise ConfigError(f"report needs a run; type: imgcls report {run}")
    path = Path(name).expanduser()
    if name == "last" and not path.exists():
        found = newest_run(runs)
        if found is None:
            raise ConfigError(f"report last: there is no run below {runs}; give its folder, or --experiment.output_dir")
        return found
    if not path.exists():
        raise ConfigError(f"{name!r}: no such file or folder{similar_path(name)}")
    return path


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "imgcls report",
        description="Write report.html into the folder of a run, from the files that are there: how good the model is, "
        "where it fails, how reliable its confidence is, and what to do next. fit and test do so by themselves.",
        epilog="Example: imgcls report runs/NAME/version_0 --output flowers.html",
    )
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="folder of a run or of one of its evaluations/N, a checkpoint, or last"
    )
    parser.add_argument("--output", metavar="FILE.html", help="write the page alone, to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE.html")
    parser.add_argument(
        "--experiment.output_dir", dest="runs", default="runs", metavar="FOLDER", help="folder of all runs, for last"
    )
    return parser
