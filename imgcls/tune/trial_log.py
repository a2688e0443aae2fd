"""Redirect the log of a trial into a file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna


class _TrialLog(logging.FileHandler):
    """A file handler that ignores a full disk or a removed folder, which the trial itself reports."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""

    def flush(self) -> None:
        """Flush as far as possible."""
        with suppress(OSError):
            super().flush()


@contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Write the log and traceback of a fit to a file; show only warnings on the terminal."""

    def is_shown(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith("imgcls.tune")

    logger = logging.getLogger("imgcls")
    terminal = list(logger.handlers)
    file = _TrialLog(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(file)
    for handler in terminal:
        handler.addFilter(is_shown)
    try:
        yield
    except optuna.TrialPruned:
        raise
    except Exception:
        file.handle(logger.makeRecord("imgcls", logging.ERROR, __file__, 0, "the trial failed", (), sys.exc_info()))
        raise
    finally:
        for handler in terminal:
            handler.removeFilter(is_shown)
        logger.removeHandler(file)
        file.close()
