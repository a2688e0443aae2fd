"""Parts that a finished training can do without: an error in one of them is logged, and the rest is done."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from imgcls.errors import first_line

log = logging.getLogger(__name__)


@contextmanager
def optional_part(failure: str, consequence: str) -> Iterator[None]:
    """Log any error within the block, and continue after it.

    Args:
        failure: What is missing then, such as ``No report.html``.
        consequence: What the user has nevertheless, or can type.
    """
    try:
        yield
    except Exception as error:
        log.error("%s: %s: %s; %s", failure, type(error).__name__, first_line(error), consequence)
        log.debug("Traceback:", exc_info=True)
