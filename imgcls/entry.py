"""The program: answers in an instant what needs no model, and turns every expected error into a line and an exit code."""

import sys

from imgcls.arguments import COMMANDS


def main(args: list[str] | None = None) -> None:
    """Run ``imgcls``.

    Args:
        args: The command line after the program's name; None for the real one.

    Raises:
        SystemExit: With 1 if the run failed, 2 for a bad configuration, arguments or data, 130 for Ctrl-C, 143 for
            SIGTERM; a run that is done returns.
    """
    arguments = sys.argv[1:] if args is None else list(args)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    from imgcls.program import run

    run(arguments, debug)
