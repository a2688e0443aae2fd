"""The report at the end of a fit or an evaluation, and what it needs of the images: properties and thumbnails."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image

from imgcls.checkpoints.run_folder import PROPERTIES, THUMBNAILS, predictions_file
from imgcls.commands.heat_map_files import SplitIndex, heat_map_overlays, wanted_maps
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.image_properties import image_properties
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ImageError, first_line
from imgcls.models.inference import InferenceModule
from imgcls.report.advice import advise
from imgcls.report.images import choose
from imgcls.report.png_files import FOLDER
from imgcls.report.write import write_report_of
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import read_run
from imgcls.runtime.atomic_files import naming
from imgcls.runtime.optional_part import optional_part
from imgcls.runtime.tables import short_path, write_rows, write_table

log = logging.getLogger(__name__)

SIDE = 128
"""Longer side of a thumbnail, in pixels."""
_QUALITY = 75


def report_run(
    folder: Path,
    split: str,
    data: ImageDataModule,
    splits: Sequence[str],
    maps: tuple[InferenceModule, torch.device],
    loggers: Sequence[Logger] = (),
) -> None:
    """Write image properties, thumbnails and report of a folder with predictions, and log where the page is.

    An error is logged and not raised: the training and its results are complete without a report.

    Args:
        folder: The run folder, or one of its ``evaluations/N``.
        split: The split that was evaluated last.
        data: The data of the run, whose images are read again.
        splits: The splits whose images may be read.
        maps: The model for heat maps, with its evaluated weights, and where it computes.
        loggers: Those that get the pictures, where they can.
    """
    if not (folder / predictions_file(split)).exists():
        return  # the evaluation has logged why
    again = f"all else is complete; to try the report again: imgcls report {shlex.quote(short_path(folder))}"
    with optional_part("No report.html", again):
        if len(splits) > 1 or not (folder / PROPERTIES).exists():
            write_table(folder / PROPERTIES, image_properties({name: data.split(name) for name in splits}))
        run = read_run(folder)
        advice = advise(run)
        if run.evaluated.split == split:
            wanted = choose(run.evaluated, [path for each in advice for path in each.paths])
            _write_pictures(folder, run.evaluated, _find(wanted, data, splits), data, maps)
        page = write_report_of(run, advice)
        _log_pictures(folder, loggers)
        log.info("Report: %s", short_path(page))


def _write_pictures(
    folder: Path,
    found: EvaluatedSplit,
    images: Mapping[str, SplitIndex],
    data: ImageDataModule,
    maps: tuple[InferenceModule, torch.device],
) -> None:
    """Write thumbnails, their heat maps, and ``thumbnails.csv`` that lists them."""
    files = write_thumbnails(folder, images)
    heat: dict[str, str] = {}
    if wanted := wanted_maps(found, {path: images[path] for path in files}):
        for path, pixels in zip(wanted, heat_map_overlays(*maps, data, list(wanted.values()), SIDE), strict=False):
            heat[path] = files[path].replace(".webp", "-heat.webp")
            write_thumbnail(folder / heat[path], pixels)
    rows = [(path, file, heat.get(path, "")) for path, file in files.items()]
    write_rows(folder / THUMBNAILS, ("path", "file", "heat_map"), rows)


def write_thumbnails(folder: Path, images: Mapping[str, SplitIndex]) -> dict[str, str]:
    """Write small WebP pictures of images into ``thumbnails/``; return path -> file in the run folder.

    Images of a stream are not read again, and have none.
    """
    target = folder / Path(THUMBNAILS).stem
    target.mkdir(exist_ok=True)
    (folder / THUMBNAILS).unlink(missing_ok=True)  # which must not list files that are gone
    for former in target.glob("*.webp"):
        former.unlink()
    files: dict[str, str] = {}
    unread: list[str] = []
    for path, (split, index) in images.items():
        try:
            pixels = split.read(index, SIDE)
        except ImageError as error:
            unread.append(first_line(error))
            continue
        files[path] = f"{target.name}/{len(files):03d}.webp"
        write_thumbnail(folder / files[path], pixels)
    if unread:
        log.warning("No thumbnail of %d images that could be read before, such as %s", len(unread), unread[0])
    return files


def write_thumbnail(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an RGB image, uint8 ``(H, W, 3)``, as WebP of at most ``SIDE`` pixels.

    Raises:
        WriteError: If it cannot be written.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    with naming(path):
        image.save(path, quality=_QUALITY)


def _find(paths: Sequence[str], data: ImageDataModule, splits: Sequence[str]) -> dict[str, SplitIndex]:
    """Return path -> split and index of the images that can be read, in the order of the paths."""
    wanted = set(paths)
    found: dict[str, SplitIndex] = {}
    for name in splits:
        if not isinstance(data.splitter.datasets[data.splitter.source(name)], StreamImageDataset):
            split = data.split(name)
            found |= {path: (split, index) for index in range(len(split)) if (path := split.path(index)) in wanted}
    return {path: found[path] for path in paths if path in found}


def _log_pictures(folder: Path, loggers: Sequence[Logger]) -> None:
    """Add the pictures beside the report to TensorBoard."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            for path in sorted((folder / FOLDER).glob("*.png")):
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                logger.experiment.add_image(f"report/{path.stem}", pixels, dataformats="HWC")
            logger.experiment.flush()
