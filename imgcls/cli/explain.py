"""The command explain, which needs neither a Trainer nor data, so that it has a parser of its own."""

from pathlib import Path
from typing import Any

from imgcls.cli.argv import CommandLine
from imgcls.cli.export import parser_of
from imgcls.commands.resume import trained_checkpoint


def run_explain(arguments: list[str]) -> None:
    """Draw heat maps; print the folder.

    Args:
        arguments: The command line after the program's name, without short forms.
    """
    from imgcls.inference.explain import explain  # takes a while
    from imgcls.inference.load import load

    line = CommandLine(arguments)
    given: Any = parser_of("explain").parse_args(line.arguments[1:])
    checkpoint = trained_checkpoint("explain", given.ckpt_path, given.experiment.output_dir)
    classifier = load(checkpoint, config=given.config, precision="32-true")
    output = Path(given.output).expanduser() if given.output else None
    print(explain(classifier, line.images, output, given.target, given.against, overwrite=given.overwrite))
