"""The properties of images in ``image_properties.csv``."""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from imgcls.checkpoints.run_folder import PROPERTIES
from imgcls.results.run import Run

TEXTS = {"path": object, "split": object, "format": object}
WORDS = {
    "width": "the width",
    "height": "the height",
    "aspect": "width / height",
    "bytes": "the size of the file",
    "format": "the file type",
    "brightness": "brightness",
    "contrast": "contrast",
    "saturation": "saturation",
    "sharpness": "sharpness",
}


def properties_of(run: Run, split: str) -> pd.DataFrame | None:
    """Return the properties of the images of a split, ``path`` as index; None if they are unknown.

    The column ``aspect``, width / height, is added; columns without two different values are left out.
    """
    for folder in dict.fromkeys((run.folder, run.home)):  # an evaluation has those of its own images
        table = _read(folder / PROPERTIES)
        if table is not None and (table["split"] == split).any():
            return _varying(table[table["split"] == split].drop_duplicates("path").set_index("path"))
    return None


def _varying(found: pd.DataFrame) -> pd.DataFrame | None:
    """Add ``aspect``; keep the columns with two different values, None if there are none."""
    found = found.assign(aspect=found["width"] / found["height"])
    names = [name for name in WORDS if name in found and found[name].nunique() > 1]
    return found[names] if names else None


@lru_cache(maxsize=2)
def _read(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    return pd.read_csv(path, dtype=TEXTS, keep_default_na=True, encoding_errors="surrogateescape")
