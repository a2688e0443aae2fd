"""Progress of long work: a bar on a terminal, else a log line now and then."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0
_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Yield the items and show how many are done.

    Args:
        items: The items.
        total: Their number.
        what: The work, for example ``reading headers``.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, what, total, console=console, transient=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > LINE_SECONDS:
            left = (now - start) / done * (total - done)
            log.info("%s: %s of %s, about %.0f s left", what, f"{done:,}", f"{total:,}", left)
            last = now
