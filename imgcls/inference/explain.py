"""The command explain: write a picture with a heat map for each image, and a table of them."""

import logging
import sys
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import pandas as pd
from rich.progress import track

from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.datasets.image_paths import find_images
from imgcls.errors import in_lines
from imgcls.inference.classifier import Classifier
from imgcls.inference.explanations import Explanation
from imgcls.runtime.output_folder import EXPLANATIONS, default_explanations, writing_folder
from imgcls.runtime.tables import shown, write_table

log = logging.getLogger(__name__)


def explain(
    classifier: Classifier,
    images: Sequence[str],
    output: Path | None = None,
    target: str | None = None,
    against: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a PNG for each image, and explanations.csv; return their folder.

    Args:
        classifier: The classifier.
        images: Files, folders, and CSV files with a column ``path``.
        output: The folder; None for ``explanations`` in the run folder of the checkpoint, else in the working
            directory.
        target: As for ``Classifier.explain``.
        against: As for ``Classifier.explain``.
        overwrite: Replace the folder of earlier explanations.

    Raises:
        ConfigError: If there is no such class or image, or the folder exists.
    """
    files = find_images(list(images))
    found = classifier.explain(files, target, against)
    hidden = len(files) == 1 or not sys.stdout.isatty()  # elsewhere, an empty line would stay of the bar
    bar = track(found, "Images", len(files), transient=True, disable=hidden)
    folder = output or default_explanations(run_folder_of(classifier.path))
    with writing_folder(folder, overwrite, EXPLANATIONS) as partial:
        rows = [_write(each, partial, name) for each, name in zip(bar, _names(files), strict=True)]
        write_table(partial / EXPLANATIONS.marker, pd.DataFrame(rows))
    _log(rows)
    return folder


def _names(files: Sequence[str]) -> list[str]:
    """Return the name of the PNG of each file; a number tells equal ones apart."""
    names: dict[str, str] = {}  # in lower case, for file systems that do not tell cases apart
    for stem in (Path(file).stem for file in files):
        free = (f"{stem}{suffix}.png" for suffix in chain([""], map("_{}".format, count(2))))
        name = next(name for name in free if name.lower() not in names)
        names[name.lower()] = name
    return list(names.values())


def _write(explanation: Explanation, folder: Path, name: str) -> dict[str, str]:
    """Write the picture of an explanation; return its row."""
    if not explanation.error:
        explanation.panel().save(folder / name)
    height, width = explanation.grid
    return {
        "path": explanation.path,
        "prediction": explanation.prediction,
        "probability": explanation.probability,
        "target": explanation.target,
        "against": explanation.against,
        "file": "" if explanation.error else name,
        "layer": explanation.layer,
        "grid": "" if explanation.error else f"{height} x {width}",
        "drawn_on": "" if explanation.error else "input" if explanation.shows_input else "photo",
        "error": explanation.error,
    }


def _log(rows: Sequence[dict[str, str]]) -> None:
    """Log which layer was used, and what is unusual."""
    errors = [f"{shown(row['path'])}: {shown(row['error'])}" for row in rows if row["error"]]
    drawn = [row for row in rows if not row["error"]]
    for layer, grid in {(row["layer"], row["grid"]): None for row in drawn}:
        if layer == "pixels":
            log.info("The network has no layer with a usable spatial grid: the maps are SmoothGrad times input")
        else:
            images = "1 image" if len(drawn) == 1 else f"{len(drawn):,} images"
            log.info("Heat maps of %s, from %s, a grid of %s", images, layer, grid)
    if any(row["drawn_on"] == "input" for row in drawn):
        log.info(
            "Drawn on the network's input, since data.augmentations.eval changes colours or bends images, so that "
            "positions in the photo are unknown"
        )
    if errors:
        log.warning("%d of %d images could not be explained:%s", len(errors), len(rows), in_lines(errors))
