"""Location of the cache: decoded images, frozen features and indexes of archives."""

import os
from pathlib import Path


def cache_folder(given: str | None = None) -> Path:
    """Return the cache folder: ``given``, else ``$IMGCLS_CACHE``, else ``~/.cache/imgcls``; expands ``~``."""
    return Path(given or os.environ.get("IMGCLS_CACHE") or "~/.cache/imgcls").expanduser().absolute()
