"""PredictionFile: a CSV or Parquet table with one row per image, written batch by batch by each process of a run."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from imgcls.datasets.labels import read_names, to_text
from imgcls.errors import ConfigError, first_line
from imgcls.predictions.csv_rows import CsvRows, read_csv
from imgcls.predictions.predicted_texts import Selection, predicted_texts
from imgcls.predictions.prediction_rows import Columns, Rows, top_classes
from imgcls.runtime.atomic_files import PartialFile
from imgcls.runtime.distributed import gather
from imgcls.runtime.output_file import check_output
from imgcls.runtime.process_parts import concatenate
from imgcls.runtime.resumable_output import Output, Progress

PARQUET = ".parquet"

_CSV = {"", ".csv"}  # endings of files that are written as CSV
_FIRST = 3  # images without a prediction that are kept


class Format(Protocol):
    """How rows are written."""

    def heading(self, is_first: bool) -> bytes:
        """Return the start of a part of the file; ``is_first``: of the part with the first rows."""

    def rows(self, rows: Rows) -> bytes:
        """Return the rows of a batch."""


class PredictionFile:
    """Write ``path, prediction, probability, prob_<class>…, error``, in the order of the inputs.

    The values are those of ``PredictedTexts``. An image that could not be read, or whose outputs are not finite, has a
    reason in ``error`` and no other value.

    Args:
        path: The file: Parquet if its extension is ``.parquet``, else CSV.
        class_names: Names of the model's outputs.
        thresholds: Multi-label: the threshold of each class; None for single-label models.
        has_labels: Whether a column ``label`` with the true label follows the path, written as ``prediction`` is.
        top_k: Columns ``top_1, top_1_probability, top_2…`` of so many classes in place of ``prob_<class>``.
        selection: On which images the model abstains, and which classes a column ``set`` has.

    Raises:
        ConfigError: If the file cannot be written, or the package for Parquet is missing.
    """

    def __init__(
        self,
        path: Path,
        class_names: list[str],
        thresholds: list[float] | None,
        has_labels: bool = False,
        top_k: int | None = None,
        selection: Selection = Selection(),  # noqa: B008 - immutable
    ) -> None:
        check_output(path)
        self.path = path
        self.class_names = class_names
        self.thresholds = thresholds
        self.selection = selection
        self.columns = Columns(class_names, thresholds is not None, has_labels, top_k, selection.in_set is not None)
        self.is_parquet = is_parquet(path)
        if self.is_parquet:
            check_format(path)
            from imgcls.predictions.parquet import ArrowRows, write_parquet  # of an extra

            self._format: Format = ArrowRows(self.columns)
            self.output = Output(path, write_parquet)
        else:
            self._format = CsvRows(self.columns)
            self.output = Output(path, concatenate)
        self.progress = Progress()
        """Rows so far, and the first images without a prediction; of all processes after ``join``."""
        self._file: PartialFile | None = None

    def begin(self, file: PartialFile, is_first: bool, progress: Progress | None = None) -> None:
        """Start to write into an open file, after the rows of an earlier process, if it has any.

        Args:
            file: The file.
            is_first: Whether it has the first rows of the table.
            progress: Its rows; None for no rows.
        """
        self._file, self.progress = file, progress or Progress()
        if not file.tell():
            self._write(self._format.heading(is_first))

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
        probs = probs.cpu()
        found = predicted_texts(probs, errors, self.class_names, self.thresholds, self.selection)
        top = None if self.columns.top_k is None else top_classes(probs, self.columns.top_k)
        given = None if labels is None else [self._label(classes) for classes in labels]
        self._write(self._format.rows(Rows(paths, given, found, probs.numpy(), top)))
        wrong = [(path, texts.error) for path, texts in zip(paths, found, strict=True) if texts.error]
        names = [each.prediction for each in found if not each.error]
        if self.thresholds is not None:
            names = [name for text in names for name in read_names(text)]
        rows, count, first, predicted = self.progress
        first = (*first, *wrong)[:_FIRST]
        self.progress = Progress(rows + len(paths), count + len(wrong), first, predicted + Counter(names))

    def _write(self, content: bytes) -> None:
        assert self._file is not None  # noqa: S101 - begun before
        self._file.write(content)
        self._file.check()

    def _label(self, classes: list[int]) -> str:
        """Return the true classes of an image as one cell."""
        names = tuple(self.class_names[index] for index in classes)
        return to_text(names[0] if self.thresholds is None else names)

    def join(self) -> None:
        """Add up the progress of all processes."""
        rows, errors, first, predicted = zip(*gather(self.progress), strict=True)
        first_errors = tuple(item for items in first for item in items)[:_FIRST]
        self.progress = Progress(sum(rows), sum(errors), first_errors, sum(predicted, Counter()))

    def first_rows(self, count: int) -> list[list[str]]:
        """Return the heading and at most ``count`` rows of the complete file."""
        if self.is_parquet:
            from imgcls.predictions.parquet import read_parquet

            return read_parquet(self.path, count)
        return read_csv(self.path, count)


def is_parquet(path: Path) -> bool:
    """Whether a file is written as Parquet."""
    return path.suffix.lower() == PARQUET


def check_format(path: Path) -> None:
    """Check that the ending of a file names a format that can be written.

    Raises:
        ConfigError: Names those that can, or what to install.
    """
    if not is_parquet(path):
        if path.suffix.lower() not in _CSV:
            raise ConfigError(f"--output {path}: {path.suffix} is not supported; end the file with .csv or {PARQUET}")
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--output {path}: Parquet needs the package pyarrow: pip install 'imgcls[parquet]' ({first_line(error)})"
        ) from error
