"""Progress of long work: a bar on a terminal, else a log line now and then."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

BAR_SECONDS = 0.5  # between two updates of the bar
LINE_SECONDS = 30.0  # between two log lines
_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Yield the items and show how many are done, unless the work is quick.

    Args:
        items: The items.
        total: Their number.
        what: The work, for example ``reading headers``.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # no rich.progress.track: its threads would run while the items fork loader workers
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False) if console.is_terminal else None
    task = bar.add_task(what, total=total) if bar else None
    start = last = time.monotonic()
    try:
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - last < (LINE_SECONDS if bar is None else BAR_SECONDS):
                continue
            last = now
            if bar is not None and task is not None:
                bar.start()  # has no effect if it is started
                bar.update(task, completed=done, refresh=True)
            else:
                left = (now - start) / done * (total - done)
                log.info("%s: %s of %s, about %.0f s left", what, f"{done:,}", f"{total:,}", left)
    finally:
        if bar is not None:
            bar.stop()
