"""PredictionFile: a CSV with one row per image, written batch by batch by each process of a run."""

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

import lightning.pytorch as pl
from torch import Tensor

from imgcls.callbacks.answers import answers
from imgcls.datasets.labels import to_text
from imgcls.runtime.atomic_files import PartialFile, hidden, replacing
from imgcls.runtime.distributed import gather
from imgcls.runtime.output_file import check_output

_FIRST = 3  # images without a prediction that are kept
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class PredictionFile:
    """Write ``path, prediction, probability, prob_<class>…, error``, in the order of the inputs.

    Multi-label: ``prediction`` lists the classes whose probability exceeds their threshold, sorted, as ``cat;dog`` (as
    a JSON list if a name contains ``;``), and ``probability`` their probabilities in the same order; both may be empty.

    An image that could not be read, or whose outputs are not finite, has a reason in ``error`` and no other value. Text
    that a spreadsheet would evaluate as a formula is prefixed with an apostrophe, a path with ``./``.

    The file is renamed from a hidden one when it is complete. Each of several processes writes a part with its share of
    the images; the first process merges the parts.

    Args:
        path: The CSV file.
        class_names: Names of the model's outputs.
        thresholds: Multi-label: the threshold of each class; None for single-label models.
        has_labels: Whether a column ``label`` with the true label follows the path, written as ``prediction`` is.
    """

    def __init__(
        self, path: Path, class_names: list[str], thresholds: list[float] | None, has_labels: bool = False
    ) -> None:
        self.path = path
        self.class_names = class_names
        self.thresholds = thresholds
        self.has_labels = has_labels
        self.rows = 0
        self.errors = 0
        self.first_errors: list[tuple[str, str]] = []
        """Path and reason of the first images without a prediction."""
        self._files = ExitStack()
        self._file: PartialFile | None = None

    def open(self, trainer: pl.Trainer) -> None:
        """Open the file and write the heading."""
        check_output(self.path)
        path = self.path if trainer.world_size == 1 else self._part(trainer.global_rank)
        self._file = self._files.enter_context(replacing(path))
        if trainer.is_global_zero:
            columns = [f"prob_{name}" for name in self.class_names]
            given = ["path", "label"] if self.has_labels else ["path"]
            self._write([[*given, "prediction", "probability", *columns, "error"]])

    def add(
        self, paths: Sequence[str], probs: Tensor, errors: Sequence[str], labels: Sequence[list[int]] | None = None
    ) -> None:
        """Write the rows of a batch.

        Args:
            paths: Path of each image.
            probs: ``(B, classes)`` floats, the probabilities.
            errors: Why an image could not be read, else "".
            labels: Class indices of each image, if the file has labels.
        """
        # shortest decimal form that reads back as the same float32
        texts = [[str(value) for value in row] for row in probs.cpu().numpy()]
        found = answers(probs, errors, self.class_names, self.thresholds)
        given: list[list[str]] = [[self._label(classes)] for classes in labels] if labels else [[] for _ in paths]
        rows = []
        for path, label, row, answer in zip(paths, given, texts, found, strict=True):
            result = [*label, _escaped(answer.prediction, "'"), answer.probability]
            rows.append([_escaped(path, "./"), *result, *([""] * len(row) if answer.error else row), answer.error])
            self.errors += bool(answer.error)
            if answer.error and self.errors <= _FIRST:
                self.first_errors.append((path, answer.error))
        self._write(rows)
        self.rows += len(rows)

    def _write(self, rows: Iterable[Sequence[str]]) -> None:
        assert self._file is not None  # noqa: S101 - opened before
        self._file.write(_as_csv(rows))
        self._file.check()

    def _label(self, classes: list[int]) -> str:
        """Return the true classes of an image as one cell."""
        names = tuple(self.class_names[index] for index in classes)
        return _escaped(to_text(names[0] if self.thresholds is None else names), "'")

    def close(self, trainer: pl.Trainer) -> None:
        """Close the file; merge the parts of several processes."""
        self._files.close()
        counts = gather((self.rows, self.errors, self.first_errors))  # afterwards all parts are complete
        self.rows, self.errors = sum(rows for rows, *_ in counts), sum(errors for _, errors, _ in counts)
        self.first_errors = [error for *_, errors in counts for error in errors][:_FIRST]
        if trainer.is_global_zero and len(counts) > 1:
            self._merge([self._part(rank) for rank in range(len(counts))])

    def discard(self, reason: BaseException) -> None:
        """Remove the incomplete file."""
        self._files.__exit__(type(reason), reason, reason.__traceback__)

    def _part(self, rank: int) -> Path:
        return hidden(self.path, f".part{rank}")

    def _merge(self, paths: list[Path]) -> None:
        """Interleave the rows of the parts, as the distributed sampler assigned the images."""
        with replacing(self.path) as merged, ExitStack() as files:
            parts = [csv.reader(files.enter_context(_reading(path))) for path in paths]
            merged.write(_as_csv([next(parts[0])]))
            for rows in zip_longest(*parts):
                merged.write(_as_csv(row for row in rows if row is not None))
        for path in paths:
            path.unlink()


def first_rows(path: Path, count: int) -> list[list[str]]:
    """Return the heading and at most ``count`` rows of a file."""
    with _reading(path) as file:
        return [row for row, _ in zip(csv.reader(file), range(count + 1), strict=False)]


def _as_csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    # file names that are not UTF-8 keep their bytes
    return text.getvalue().encode(errors="surrogateescape")


def _reading(path: Path) -> TextIO:
    return path.open(newline="", encoding="utf-8", errors="surrogateescape")


def _escaped(text: str, prefix: str) -> str:
    return f"{prefix}{text}" if text.startswith(_FORMULA_STARTS) else text
