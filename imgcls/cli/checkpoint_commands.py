"""The commands ``export`` and ``explain``, which need a checkpoint alone: no Trainer and no data module."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from imgcls.cli.argv import CommandLine
from imgcls.cli.options import add_options
from imgcls.commands.resume import trained_checkpoint
from imgcls.config.sections import ExperimentConfig
from imgcls.export.formats import ExportOptions


def parser_of(command: str) -> ArgumentParser:
    """Make the parser of a command that reads a checkpoint alone."""
    parser = ArgumentParser(f"imgcls {command}", exit_on_error=False)
    add_options(parser, command)
    parser.add_argument("-c", "--config", type=str | None, help="The config.yaml of the run, if its classes are yours.")
    runs = ExperimentConfig().output_dir
    parser.add_argument("--experiment.output_dir", type=str, default=runs, help="The folder of all runs.")
    return parser


def run_export(arguments: list[str]) -> None:
    """Export a trained model; print the folder.

    Args:
        arguments: The command line after the program's name, without positional arguments.
    """
    from imgcls.export.export import export, load_exact  # takes a while

    given = _read(arguments)
    options = ExportOptions(given.batched, given.quantize, given.from_network_input)
    classifier = load_exact(given.checkpoint, given.config)
    print(export(classifier, given.format, given.folder, given.files, options, overwrite=given.overwrite))


def run_explain(arguments: list[str]) -> None:
    """Draw heat maps; print the folder.

    Args:
        arguments: The command line after the program's name, without positional arguments.
    """
    from imgcls.inference.explain import explain  # takes a while
    from imgcls.inference.load import load

    given = _read(arguments)
    classifier = load(given.checkpoint, config=given.config, precision="32-true")
    print(explain(classifier, given.files, given.folder, given.target, given.against, overwrite=given.overwrite))


def _read(arguments: list[str]) -> Any:
    """Return the options, with the ``checkpoint``, the images as ``files`` and the output as ``folder`` (or None)."""
    line = CommandLine(arguments)
    given: Any = parser_of(line.command).parse_args(line.arguments[1:])
    given.checkpoint = trained_checkpoint(line.command, given.ckpt_path, given.experiment.output_dir)
    given.folder = Path(given.output).expanduser() if given.output else None
    given.files = line.images
    return given
