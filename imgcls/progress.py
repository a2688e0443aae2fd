"""A progress bar for what takes longer than a user likes to wait without a word."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds without a word
_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Pass items on; after two seconds with a progress bar, or with one line where there is no terminal.

    Args:
        items: The items.
        total: How many there are.
        what: What happens to them, such as ``reading headers``.
    """
    start, bar = time.monotonic(), None
    said = False
    try:
        for number, item in enumerate(items):
            if not said and time.monotonic() - start > _PATIENCE:
                said = True
                bar = _begin(what, total)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=number)
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _begin(what: str, total: int) -> Progress | None:
    if not sys.stderr.isatty():
        log.info("%s: %s …", what, f"{total:,}")
        return None
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, transient=True)
    bar.add_task(what, total=total)
    bar.start()
    return bar
