"""The options of each command beside those of Lightning's Trainer, the model and the data."""

from typing import Literal

from jsonargparse import ActionYesNo, ArgumentParser

from imgcls.models.tta import TTA

_CKPT_PATH = {
    "fit": "Checkpoint whose run is resumed. 'last' is the newest run; beside PHOTOS or --config, the newest of that "
    "name.",
    "tune": "Must be null: the search resumes its trials by itself.",
    "check": "Not read.",
}
_EVALUATED = "Checkpoint to load, or a run folder for its best one; 'last' is the newest run."
_TTA = (
    "Test-time augmentation: average the probabilities over each image and its mirror image (hflip), or also both "
    "upside down (flips)."
)
_OUTPUT = "CSV file to write (default: predictions.csv in the checkpoint's run folder, else in the working directory)."
_FOLDER = (
    "Folder for the figures and one row per image (default: the checkpoint's run folder, for other data or settings "
    "than the run's evaluations/N in it)."
)
_CHECKED = (
    "Folders of class folders, or of images, each read as train; a folder with 'train' and 'validation' (or 'val', "
    "'valid') or 'test' in it is read as these splits. In place of data.dataset_classes."
)


def add_options(parser: ArgumentParser, command: str) -> None:
    """Add the options of a command to its parser."""
    parser.add_argument("--ckpt_path", type=str | None, help=_CKPT_PATH.get(command, _EVALUATED))
    if command == "predict":
        images = "Files, folders, or CSV files with a column 'path'."
        parser.add_argument("--images", type=list[str] | None, help=images)
        parser.add_argument("--output", type=str | None, help=_OUTPUT)
        yes = ActionYesNo(no_prefix=None)
        parser.add_argument("--overwrite", action=yes, default=False, help="Replace an existing CSV file.")
    if command in {"validate", "test", "predict"}:
        parser.add_argument("--tta", type=TTA, default="none", help=_TTA)
    if command in {"validate", "test"}:
        parser.add_argument("--output", type=str | None, help=_FOLDER)
    if command == "check":
        parser.add_argument("--images", type=list[str] | None, help=_CHECKED)
        parser.add_argument("--json", type=str | None, help="Write all findings to this JSON file.")
        parser.add_argument("--html", type=str | None, help="Write a page with the duplicates to this HTML file.")
        allowed = list[Literal["leakage", "unreadable"]] | None
        parser.add_argument("--allow", type=allowed, help="Findings that are reported, but are no error.")
