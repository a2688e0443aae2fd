"""How far a long piece of work has come: a bar on a terminal, else a line now and then."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

BAR_SECONDS = 2.0  # what is done by then needs no bar
LINE_SECONDS = 30.0
_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Pass items on, and tell how many have passed; what is quick is not spoken of.

    Args:
        items: The items.
        total: How many there are.
        what: What happens to them, such as ``reading headers``.
    """
    told = _Told(what, total)
    try:
        for item in items:
            yield item
            told.advance()
    finally:
        told.end()


class _Told:
    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._start = self._last = time.monotonic()
        console = Console(stderr=True)
        columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task(what, total=total) if self._bar else None

    def advance(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            if now - self._start > BAR_SECONDS:
                self._bar.start()  # again and again does no harm
            self._bar.update(self._task, completed=self.done)
        elif now - self._last > LINE_SECONDS:
            left = (now - self._start) / self.done * (self.total - self.done)
            log.info("%s: %s of %s, about %.0f s to go", self.what, f"{self.done:,}", f"{self.total:,}", left)
            self._last = now

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
