"""EvaluatedSplit: labels and probabilities of the images of a split, read from its table of predictions."""

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.checkpoints.run_folder import EVALUATED, EVALUATION, results_file
from imgcls.datasets.labels import multi_hot, read_names
from imgcls.errors import ConfigError, first_line

Labels = NDArray[Any]
"""Single-label: int64 ``(N,)``, class indices. Multi-label: bool ``(N, classes)``."""

_BEFORE, _AFTER = ["path", "label", "prediction", "probability"], "error"
_PREFIX = "prob_"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_SUM_TOLERANCE = 0.02  # of the probabilities of an image in half precision


@dataclass(frozen=True)
class EvaluatedSplit:
    """The images of an evaluation that have a prediction, in the order of the table.

    Args:
        split: ``validation`` or ``test``.
        paths: N paths, as in ``splits.csv``.
        labels: Single-label: int64 ``(N,)``, class indices. Multi-label: bool ``(N, classes)``.
        probs: float64 ``(N, classes)``, 0 to 1.
        predicted: The predictions, in the form of the labels.
        class_names: In the order of the columns.
        chose_epoch: Whether the best epoch was chosen by these images, which makes the scores too good.
        errors: Path -> reason, of images without a prediction; they are in no array.
    """

    split: str
    paths: list[str]
    labels: Labels
    probs: NDArray[np.float64]
    predicted: Labels
    class_names: list[str]
    chose_epoch: bool = False
    errors: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of images with a prediction."""
        return len(self.paths)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.labels.ndim == 2

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, ``(N,)``; multi-label: right in every class."""
        equal = np.asarray(self.labels == self.predicted)
        return np.asarray(equal.all(axis=1)) if self.multilabel else equal

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the prediction, float64 ``(N,)``; multi-label: of its least confident class."""
        if not self.multilabel:
            return self.probs[np.arange(len(self)), self.predicted]
        return np.asarray(np.where(self.predicted, self.probs, 1 - self.probs).min(axis=1, initial=1.0))


def read_predictions(path: Path) -> EvaluatedSplit:
    """Read ``validation_predictions.csv`` or ``test_predictions.csv``.

    Args:
        path: The table, in a run folder or in ``evaluations/N``.

    Raises:
        ConfigError: If it cannot be read, or is not a table of predictions with labels.
    """
    split = path.name.partition("_")[0]
    if split not in (*EVALUATED, "train"):
        raise ConfigError(f"{path}: expected validation_predictions.csv or test_predictions.csv")
    header = _header(path)
    names = [name.removeprefix(_PREFIX) for name in header[len(_BEFORE) : -1]]
    found = _read(path, len(header))
    fine = (found[len(header) - 1] == "").to_numpy()
    errors = dict(zip(map(_path, found[0][~fine]), found[len(header) - 1][~fine], strict=True))
    rows = found[fine]
    probs = rows[list(range(len(_BEFORE), len(header) - 1))].to_numpy(np.float64)
    record = read_record(path.parent / results_file(split))
    try:
        labels, predicted = _classes(path, rows[1].tolist(), rows[2].tolist(), probs, names, record)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: {first_line(error)} is none of its classes") from error
    chose = split == "validation" and not is_of_other_data(read_record(path.parent / EVALUATION))
    paths = list(map(_path, rows[0]))
    return EvaluatedSplit(split, paths, labels, probs, predicted, names, chose, errors)


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header = next(csv.reader(file), [])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if header[: len(_BEFORE)] != _BEFORE or header[-1] != _AFTER or len(header) < len(_BEFORE) + 2:
        raise ConfigError(f"{path}: expected the columns {', '.join(_BEFORE)}, prob_<class>…, error")
    return header


def _read(path: Path, columns: int) -> pd.DataFrame:
    """Read the rows; columns are numbered, since pandas refuses names that are not UTF-8."""
    texts = [*range(len(_BEFORE)), columns - 1]
    kinds: dict[Any, Any] = {number: object if number in texts else np.float64 for number in range(columns)}
    empty: dict[Any, Any] = {number: [""] for number in kinds if number not in texts}
    try:
        found: pd.DataFrame = pd.read_csv(
            path,
            header=0,
            names=list(range(columns)),
            dtype=kinds,
            na_values=empty,
            keep_default_na=False,
            encoding_errors="surrogateescape",
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({first_line(error)})") from error
    return found


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run; empty if it is missing, as in older runs.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({first_line(error)})") from error
    return found if isinstance(found, dict) else {}


def is_of_other_data(record: dict[str, Any]) -> bool:
    """Whether an evaluation used other images than those of the run, by what ``evaluation.json`` says of it."""
    return any(str(key).startswith("data.init_args.dataset_classes") for key in record.get("changed", {}))


def _classes(
    path: Path,
    labels: list[str],
    predictions: list[str],
    probs: NDArray[np.float64],
    names: list[str],
    record: dict[str, Any],
) -> tuple[Labels, Labels]:
    """Return labels and predictions as arrays."""
    columns = {name: index for index, name in enumerate(names)}
    if not _is_multilabel(predictions, probs, columns, record):
        given = [np.array([columns[_name(text, columns)] for text in each], np.int64) for each in (labels, predictions)]
        return given[0], given[1]
    found = []
    for texts in (labels, predictions):
        known = {text: _names(text, columns) for text in dict.fromkeys(texts)}
        found.append(multi_hot([known[text] for text in texts], columns).astype(bool))
    return found[0], found[1]


def _is_multilabel(
    predictions: list[str], probs: NDArray[np.float64], columns: dict[str, int], record: dict[str, Any]
) -> bool:
    """Whether an image may have several classes; where older runs do not record it, by the predictions."""
    if "multilabel" in record:
        return bool(record["multilabel"])
    if not len(probs):
        return False
    best = probs.argmax(axis=1)
    sums_to_one = bool((np.abs(probs.sum(axis=1) - 1) < _SUM_TOLERANCE).all())
    return not sums_to_one or any(
        columns.get(_name(text, columns)) != index for text, index in zip(predictions, best.tolist(), strict=True)
    )


def _name(text: str, columns: dict[str, int]) -> str:
    """Return a cell without the apostrophe that keeps a spreadsheet from evaluating it."""
    escaped = text.startswith("'") and text[1:].startswith(_FORMULA_STARTS)
    return text[1:] if escaped and text not in columns else text


def _names(text: str, columns: dict[str, int]) -> tuple[str, ...]:
    names = read_names(text)
    return names if all(name in columns for name in names) else read_names(_name(text, {}))


def _path(text: str) -> str:
    return text[2:] if text.startswith("./") and text[2:].startswith(_FORMULA_STARTS) else text
