"""The properties of images by which errors or classes may differ."""

import pandas as pd

from imgcls.results.run import Run

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
    """Return the properties of the images of a split that have two different values, by path; None without any.

    Width / height is one of them, ``aspect``.
    """
    found = run.properties(split)
    if found is None:
        return None
    if {"width", "height"} <= {*found}:
        found = found.assign(aspect=found["width"] / found["height"])
    names = [name for name in WORDS if name in found and found[name].nunique() > 1]
    return found[names] if names else None
