"""Progress of long work: a bar on a terminal, else a log line now and then."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

BAR_SECONDS = 0.5  # between two updates of a bar
LINE_SECONDS = 30.0  # between two log lines
_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Yield ``total`` items and show how many are done, unless the work is quick.

    ``what`` is the work, for example ``reading headers``.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # no rich.progress.track: its threads would run while the items fork loader workers
    has_bar = console.is_terminal and not isinstance(sys.stderr, FileProxy)  # which the bar of a fit puts there
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False) if has_bar else None
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
                left = duration((now - start) / done * (total - done))
                log.info("%s: %s of %s, about %s left", what, f"{done:,}", f"{total:,}", left)
    finally:
        if bar is not None:
            bar.stop()


def duration(seconds: float) -> str:
    """Format a duration: ``45 s``, ``3:10 min`` or ``1:02:05 h``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
