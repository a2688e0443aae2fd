"""The program: answers at once what needs no model, and hands the rest to the commands."""

import gc
import os
import sys
from collections.abc import Callable

import imgcls
from imgcls.cli import models, precheck, schema
from imgcls.cli.argv import COMMANDS
from imgcls.cli.help import OWN_HELP, full_help, help_of, main_help
from imgcls.cli.positional_arguments import add_newest_run, expand
from imgcls.cli.required_inputs import check_required_inputs
from imgcls.errors import INTERRUPTED, ConfigError, ImgclsError

_LOADING = "Loading ..."


def main(args: list[str] | None = None) -> None:
    """Run ``imgcls``.

    Args:
        args: The command line after the program's name; None for the real one.

    Raises:
        SystemExit: With 1 if the run failed, 2 for a bad configuration, arguments or data, 130 for Ctrl-C, 143 for
            SIGTERM. A run that is done returns.
    """
    given = sys.argv[1:] if args is None else list(args)
    arguments = [argument for argument in given if argument != "--debug"]
    if "_ARGCOMPLETE" in os.environ:
        from imgcls.cli.completion import complete

        complete()
    try:
        text = _answer(arguments)
        if text is not None:
            _print(text)
            return
        _refuse_ascii(arguments)
        precheck.check_command(arguments)
        typed = arguments
        arguments, notes = expand(typed)
        precheck.check(arguments, typed)
        arguments, more = add_newest_run(arguments)
        check_required_inputs(arguments, typed)
    except KeyboardInterrupt:  # of init, which may wait for a slow disk
        raise SystemExit(INTERRUPTED) from None
    except ImgclsError as error:
        print(f"imgcls: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    is_first = all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    if is_first:
        print(*(f"{note}\n" for note in [*notes, *more]), sep="", end="", file=sys.stderr)
    _run(arguments, "--debug" in given, says_so=is_first and sys.stderr.isatty(), is_program=args is None)


def _run(arguments: list[str], debug: bool, says_so: bool, is_program: bool) -> None:
    """Import the program and run a command.

    Args:
        arguments: The command line.
        debug: Whether an error has a traceback.
        says_so: Whether to show a line during the import.
        is_program: Whether the process ends with the command.
    """
    from imgcls.runtime.cores import share_cores
    from imgcls.runtime.signals import Stopped, end_now, ending_at_once, listening  # 10 ms, which no early answer needs

    share_cores()
    _find_modules_here()
    try:
        with listening(to_the_end=is_program):
            with ending_at_once():
                run = _import_program(says_so=says_so)
            run(arguments, debug=debug)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Stopped as stop:
        if is_program:
            end_now(stop)
        raise


def _answer(arguments: list[str]) -> str | None:
    """Return the text that a command line asks for: help, version, schema, completion; None if it asks for a run."""
    command, *rest = arguments or ["help"]
    if command == "help" and rest:
        command, *rest = [*rest, "--help"]
    if command in {"-V", "--version", "version"}:
        return f"imgcls {imgcls.__version__}"
    if rest == ["help"] or ({"-h", "--help"} & {*rest} and command not in OWN_HELP):
        command = precheck.SYNONYMS.get(command, command)
        return full_help(command) if command in COMMANDS and "all" in rest else help_of(command)
    if command in {"-h", "--help", "help"}:
        return main_help()
    if command == "init":
        from imgcls.init.command import init

        return init(rest)
    if command == "compare":
        from imgcls.compare.command import run_compare

        return run_compare(rest)
    if command == "report":
        from imgcls.report.command import report

        return report(rest)
    if command == "models":
        return models.table()
    if command == "completion":
        from imgcls.cli.completion import script

        return script(rest)
    return schema.text() if command == "schema" else None


def _refuse_ascii(arguments: list[str]) -> None:
    """Refuse names that this locale cannot read; by default Python takes UTF-8 in its place.

    Raises:
        ConfigError: Says how to switch UTF-8 on.
    """
    if sys.getfilesystemencoding() == "ascii" and not all(map(str.isascii, arguments)):
        name = next(argument for argument in arguments if not argument.isascii())
        raise ConfigError(f"{name!a}: cannot be read, for this locale knows ASCII alone; set PYTHONUTF8=1")


def _import_program(says_so: bool = False) -> Callable[..., None]:
    """Import what takes seconds (torch, Lightning, transformers) with Python's garbage collector out of the way.

    It would walk the growing heap of modules again and again: 5.4 s instead of 4.4, and 1.4 s more at exit. They stay
    until the end, so they are frozen: no later collection walks them, and forked loader workers keep sharing them.

    Args:
        says_so: Whether to show a line on stderr until it is done.
    """
    if "imgcls.cli.run_command" not in sys.modules and gc.isenabled():
        print(_LOADING * says_so, end="", file=sys.stderr, flush=True)
        gc.disable()
        try:
            import imgcls.cli.run_command  # noqa: F401
        finally:
            gc.freeze()
            gc.enable()
            print(f"\r{' ' * len(_LOADING)}\r" * says_so, end="", file=sys.stderr, flush=True)
    from imgcls.cli.run_command import run

    return run


def _find_modules_here() -> None:
    """Let a configuration name classes of modules in the working directory; installed packages come first."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def _print(text: str) -> None:
    try:
        print(text.rstrip(), flush=True)
    except BrokenPipeError:  # of `imgcls --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
