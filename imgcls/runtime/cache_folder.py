"""Where imgcls keeps what can be made again: decoded images, indexes of archives."""

import os
from pathlib import Path


def cache_folder(given: str | None = None) -> Path:
    """Return the folder of all that is kept between runs: the one given, else $IMGCLS_CACHE, else ~/.cache/imgcls.

    Args:
        given: A folder, ``~`` for the home folder; null for the rule.
    """
    return Path(given or os.environ.get("IMGCLS_CACHE") or "~/.cache/imgcls").expanduser().absolute()
