"""Parity: the exported model, in a process of its own, gives the probabilities of ``imgcls predict`` on real files."""

import logging
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.errors import ConfigError, RunError
from imgcls.export.formats import Written
from imgcls.inference.classifier import Classifier

log = logging.getLogger(__name__)

_PROBABILITIES = "prob_"


@dataclass(frozen=True)
class Parity:
    """The result of a comparison."""

    images: int  # that were compared
    same_top1: int  # of these, those with the same most probable class
    max_difference: float  # of a probability
    tolerance: float
    first_beyond: str  # the first image beyond the tolerance, with both predictions; "" if there is none
    beyond: int  # images beyond it
    left_out: dict[str, str]  # files that were not compared -> reason

    def __str__(self) -> str:
        """Return the result as a sentence."""
        ties = self.images - self.same_top1
        tied = f" ({ties} with two classes equal within the tolerance)" * (ties > 0 and not self.beyond)
        return (
            f"same top-1 for {self.same_top1} of {self.images}{tied}, largest difference of a probability "
            f"{self.max_difference:.1e} (accepted: {self.tolerance:.0e})"
        )


def check_parity(classifier: Classifier, written: Written, paths: Sequence[str], shown: Sequence[str] = ()) -> Parity:
    """Compare an exported model with its classifier, from file to probability.

    Args:
        classifier: The classifier, in float32.
        written: The exported model.
        paths: Image files.
        shown: Their names in messages; the paths if empty.

    Raises:
        ConfigError: If the classifier can read none of the files.
        RunError: If the program of the exported model fails.
    """
    expected = classifier.predict(list(paths))
    found = _predicted(written, paths)
    names = list(shown or paths)
    left_out = {
        name: reason
        for name, path, error in zip(names, paths, expected["error"], strict=True)
        if (reason := (error and "not read by imgcls") or written.reads_otherwise(path))
    }
    rows = [number for number, name in enumerate(names) if name not in left_out]
    if not rows:
        raise ConfigError(f"none of {len(paths)} images can be compared ({next(iter(left_out.values()))}); give others")
    return _compare(expected, found, rows, names, written.tolerance, left_out)


def _compare(
    expected: pd.DataFrame,
    found: pd.DataFrame,
    rows: list[int],
    names: list[str],
    tolerance: float,
    left_out: dict[str, str],
) -> Parity:
    columns = [name for name in expected.columns if name.startswith(_PROBABILITIES)]
    if [name for name in found.columns if name.startswith(_PROBABILITIES)] != columns or len(found) != len(expected):
        raise RunError("the exported model has other classes, or other rows, than the checkpoint")
    ours, theirs = (_numbers(table, columns)[rows] for table in (expected, found))
    differences = np.nan_to_num(np.abs(ours - theirs).max(axis=1), nan=np.inf)
    wrong = np.flatnonzero(differences > tolerance)
    first = ""
    if len(wrong):
        row = rows[wrong[0]]
        predictions = [_prediction(table, columns, row) for table in (expected, found)]
        first = f"{names[row]}: imgcls predicts {predictions[0]}, the exported model {predictions[1]}"
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    return Parity(len(rows), same, float(differences.max()), tolerance, first, len(wrong), left_out)


def _numbers(table: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    return np.asarray(table[columns].apply(pd.to_numeric), dtype=np.float64)


def _prediction(table: pd.DataFrame, columns: list[str], row: int) -> str:
    values = table[columns].iloc[row].astype(float)
    if values.isna().any():
        error = table["error"].iloc[row] if "error" in table else None
        return error if isinstance(error, str) else "nothing"
    return f"{str(values.idxmax()).removeprefix(_PROBABILITIES)} ({values.max():.4f})"


def _predicted(written: Written, paths: Sequence[str]) -> pd.DataFrame:
    """Run the program of an exported model on files; return its rows."""
    with tempfile.TemporaryDirectory() as folder:
        files, rows = Path(folder, "files.txt"), Path(folder, "rows.csv")
        given = written.prepare(paths, Path(folder)) if written.prepare else paths
        absolute = "\n".join(os.path.abspath(path) for path in given)
        files.write_text(absolute, encoding="utf-8", errors="surrogateescape")
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        line = [*written.command, "--list", str(files), "--output", str(rows)]
        result = subprocess.run(line, capture_output=True, text=True, errors="replace", env=environment, check=False)  # noqa: S603
        if result.returncode:
            last = next(iter(reversed(result.stderr.strip().splitlines())), f"exit code {result.returncode}")
            raise RunError(f"the exported model cannot be run: {last}")
        return pd.read_csv(rows, dtype=str, keep_default_na=False, encoding_errors="surrogateescape").replace("", None)
