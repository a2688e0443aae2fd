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
_TTA = "Average over each image and its mirror image (hflip), or also both upside down (flips)."
_RAW = "Leave out the temperature that the fit has found."
_OUTPUT = (
    "CSV, or .parquet, file to write (default: predictions.csv in the checkpoint's run folder, else in the working "
    "directory)."
)
_TOP_K = "Write the K most probable classes, in place of all."
_RISK = "Abstain so that at most this share is wrong."
_COVERAGE = "Add label sets; this share has the true class."
_CALIBRATE_ON = "The test_predictions.csv that both rely on."
_EMBEDDINGS = "Also write the features that the head receives."
_RESUME = "Complete a prediction that was stopped."
_FOLDER = (
    "Folder for the figures and one row per image (default: the checkpoint's run folder, for other data or settings "
    "than the run's evaluations/N in it)."
)
_EXPORTED = "Folder to write (default: export/FORMAT in the checkpoint's run folder, else in the working directory)."
_COMPARED = (
    "Files, folders, or CSV files with a column 'path', on which the exported model is compared with predict; by "
    "default at most 64 test, validation or training images of the run, else sample photos."
)
_EXPLAINED = (
    "Folder for a PNG of each image and a table of them (default: explanations in the checkpoint's run folder, else in "
    "the working directory)."
)
_TARGET = "The class that is explained; by default the predicted one, of multi-label data the most probable one."
_AGAINST = "What speaks for the explained class rather than for this one."
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
        parser.add_argument("--top_k", type=int | None, help=_TOP_K)
        parser.add_argument("--risk", type=float | None, help=_RISK)
        parser.add_argument("--coverage", type=float | None, help=_COVERAGE)
        parser.add_argument("--calibrate_on", type=str | None, help=_CALIBRATE_ON)
        parser.add_argument("--embeddings", type=str | None, help=_EMBEDDINGS)
        yes = ActionYesNo(no_prefix=None)
        parser.add_argument("--overwrite", action=yes, default=False, help="Replace existing files.")
        parser.add_argument("--resume", action=yes, default=False, help=_RESUME)
    if command in {"validate", "test", "predict"}:
        parser.add_argument("--tta", type=TTA, default="none", help=_TTA)
        raw = ActionYesNo(no_prefix=None)
        parser.add_argument("--raw", action=raw, default=False, help=_RAW)
    if command in {"validate", "test"}:
        parser.add_argument("--output", type=str | None, help=_FOLDER)
    if command == "export":
        _add_export(parser)
    if command == "explain":
        _add_explain(parser)
    if command == "check":
        parser.add_argument("--images", type=list[str] | None, help=_CHECKED)
        parser.add_argument("--json", type=str | None, help="Write all findings to this JSON file.")
        parser.add_argument("--html", type=str | None, help="Write a page with the duplicates to this HTML file.")
        allowed = list[Literal["leakage", "unreadable"]] | None
        parser.add_argument("--allow", type=allowed, help="Findings that are reported, but are no error.")


def _add_explain(parser: ArgumentParser) -> None:
    parser.add_argument("--images", type=list[str] | None, help="Files, folders, or CSV files with a column 'path'.")
    parser.add_argument("--output", type=str | None, help=_EXPLAINED)
    parser.add_argument("--target", type=str | None, help=_TARGET)
    parser.add_argument("--against", type=str | None, help=_AGAINST)
    yes = ActionYesNo(no_prefix=None)
    parser.add_argument("--overwrite", action=yes, default=False, help="Replace the folder of earlier explanations.")


def _add_export(parser: ArgumentParser) -> None:
    yes = ActionYesNo(no_prefix=None)
    kinds = "hf: a folder for transformers.pipeline; onnx: model.onnx; torch: model.pt2; both with classify.py."
    parser.add_argument("--format", type=Literal["hf", "onnx", "torch"], default="hf", help=kinds)
    parser.add_argument("--output", type=str | None, help=_EXPORTED)
    parser.add_argument("--images", type=list[str] | None, help=_COMPARED)
    parser.add_argument("--overwrite", action=yes, default=False, help="Replace the folder of an earlier export.")
    parser.add_argument(
        "--batched", action=yes, default=False, help="onnx: also write model_batched.onnx, for batches of images."
    )
    parser.add_argument(
        "--quantize", action=yes, default=False, help="onnx: also write model_int8.onnx, with 8-bit weights."
    )
    parser.add_argument(
        "--from_network_input",
        action=yes,
        default=False,
        help="onnx, torch: leave resize and crop out; images have the size of the network's input.",
    )
