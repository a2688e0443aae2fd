"""How far a long piece of work has come: a bar on a terminal, else a line now and then."""

import logging
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

BAR_SECONDS = 2.0  # what is done by then needs no bar
LINE_SECONDS = 30.0


class Told:
    """Counts, and tells; what is quick is not spoken of.

    Args:
        what: What is being made.
        total: How many there will be.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._start = self._told = time.monotonic()
        console = Console(stderr=True)
        columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task(what, total=total) if self._bar else None

    def __enter__(self) -> Self:
        return self

    def advance(self) -> None:
        """One more is done."""
        self.done += 1
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            if now - self._start > BAR_SECONDS:
                self._bar.start()  # again and again does no harm
            self._bar.update(self._task, completed=self.done)
        elif now - self._told > LINE_SECONDS:
            left = (now - self._start) / self.done * (self.total - self.done)
            log.info("%s: %s of %s images, about %.0f s to go", self.what, f"{self.done:,}", f"{self.total:,}", left)
            self._told = now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
