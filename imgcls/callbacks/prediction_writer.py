"""PredictionsWriter: one CSV row for each input image, written while predicting."""

import csv
import glob
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

import lightning.pytorch as pl
import torch
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from imgcls.datasets.labels import SEPARATOR, to_text
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import PARTIAL, PartialFile, hidden, replacing, sweep
from imgcls.runtime.distributed import gather

_NO_NUMBERS = "the model's outputs are not finite"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class PredictionsWriter(Callback):
    """Writes ``path, prediction, probability, prob_<class>…, error``, in the order of the inputs.

    Where an image may have several labels, ``prediction`` holds the classes whose probability is above their threshold,
    sorted, as ``cat;dog`` (as a JSON list where a name holds ``;``), and ``probability`` theirs in the same order; both
    are empty where there is none.

    An image that could not be read, or for which the model gives no numbers, has its reason in ``error`` and nothing
    else. The file gets its name when it is complete. A text that a spreadsheet would run as a formula (it begins with
    = + - @ tab or return) gets an apostrophe in front; a path gets ``./``, which leaves it the same path.

    Whole batches are written at once, so that a process that is killed leaves whole rows in a hidden file beside it.
    Of several processes each writes a part, for its share of the images; the first lays the parts together.

    Args:
        path: The CSV file.
        class_names: Names of the model's outputs.
        thresholds: Where an image may have several labels: the probability above which it is of a class.
    """

    def __init__(self, path: Path, class_names: list[str], thresholds: list[float] | None = None) -> None:
        self.path = path
        self.class_names = class_names
        self.thresholds = thresholds
        self.rows = 0
        self.errors = 0
        self._files = ExitStack()
        self._file: PartialFile | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the head of the table."""
        check_output(self.path)
        path = self.path if trainer.world_size == 1 else self._part(trainer.global_rank)
        self._file = self._files.enter_context(replacing(path))
        if trainer.is_global_zero:
            columns = [f"prob_{name}" for name in self.class_names]
            self._write([["path", "prediction", "probability", *columns, "error"]])

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch's rows."""
        probs: Tensor = outputs
        places = self._predicted(probs)
        # float32 in its shortest form that reads back as itself
        texts = [[str(value) for value in row] for row in probs.cpu().numpy()]
        finite = probs.isfinite().all(dim=1).tolist()
        reasons = [error or ("" if fine else _NO_NUMBERS) for error, fine in zip(batch["error"], finite, strict=True)]
        rows = []
        for path, row, found, error in zip(batch["path"], texts, places, reasons, strict=True):
            result = ["", ""] + [""] * len(row) if error else [*self._answer(found, row), *row]
            rows.append([_harmless_path(path), *result, error])
            self.errors += bool(error)
        self._write(rows)
        self.rows += len(rows)

    def _write(self, rows: Iterable[Sequence[str]]) -> None:
        assert self._file is not None  # noqa: S101 - opened where predicting starts
        self._file.write(_as_csv(rows))
        self._file.check()

    def _predicted(self, probs: Tensor) -> list[list[int]]:
        """Return the places of the predicted classes of each image."""
        if self.thresholds is None:
            return [[place] for place in probs.argmax(dim=1).tolist()]
        above = probs > torch.tensor(self.thresholds, device=probs.device)
        return [row.nonzero().flatten().tolist() for row in above.cpu()]

    def _answer(self, places: list[int], probs: list[str]) -> list[str]:
        """Return the predicted classes, and their probabilities."""
        found = sorted((self.class_names[place], probs[place]) for place in places)
        names = tuple(name for name, _ in found)
        text = to_text(names[0] if self.thresholds is None else names)
        return [_harmless(text), SEPARATOR.join(prob for _, prob in found)]

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the complete file its name."""
        self._files.close()
        counts = gather((self.rows, self.errors))  # from here on all parts are complete
        self.rows, self.errors = (sum(column) for column in zip(*counts, strict=True))
        if trainer.is_global_zero and len(counts) > 1:
            self._lay_together([self._part(rank) for rank in range(len(counts))])

    def _part(self, rank: int) -> Path:
        return hidden(self.path, f".part{rank}")

    def _lay_together(self, paths: list[Path]) -> None:
        """Put the parts' rows in turns, as the sampler shared out the images."""
        with replacing(self.path) as whole, ExitStack() as files:
            parts = [csv.reader(files.enter_context(_reading(path))) for path in paths]
            whole.write(_as_csv([next(parts[0])]))
            for rows in zip_longest(*parts):
                whole.write(_as_csv(row for row in rows if row is not None))
        for path in paths:
            path.unlink()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no half file behind."""
        self._files.__exit__(type(exception), exception, exception.__traceback__)


def _as_csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    # file names may hold bytes that are no text; they are written as they are
    return text.getvalue().encode(errors="surrogateescape")


def _reading(path: Path) -> TextIO:
    return path.open(newline="", encoding="utf-8", errors="surrogateescape")


def check_output(path: str | os.PathLike[str], option: str = "--output", example: str = "predictions.csv") -> None:
    """Refuse a file that cannot be written, before the work begins; its folder is made.

    Args:
        path: The file, as it was typed: one that ends with a slash is a folder, also where there is none yet.
        option: The option that names it.
        example: The name of such a file.

    Raises:
        ConfigError: If it is a folder or a device, its name is too long, or its folder cannot be made or written to.
    """
    file = Path(path).expanduser()
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        pass  # to be made, or said below
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written: {error.strerror}") from error
    if os.path.isdir(file) or os.fspath(path).endswith(os.sep):
        raise ConfigError(f"{option} {path}: is a folder; name a file in it, such as {file / example}")
    if os.path.exists(file) and not os.path.isfile(file):
        raise ConfigError(f"{option} {path}: is not a regular file, and would be replaced by one; name a file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: {file.parent} is no folder that can be written to ({error.strerror}); name a file "
            "elsewhere"
        ) from error


def hold_output(path: Path) -> FileLock:
    """Claim a file for this process; remove what killed ones left half-written of it.

    Raises:
        ConfigError: If another process writes it.
    """
    lock = FileLock(hidden(path, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"--output {path}: another process is writing this file; wait for it, or give --output FILE for another"
        ) from None
    except OSError as error:
        is_file = os.path.isfile(lock.lock_file) and not os.path.islink(lock.lock_file)
        strange = os.path.lexists(lock.lock_file) and not is_file
        remedy = "remove it" if strange else "give --output FILE in another folder"
        raise ConfigError(f"{lock.lock_file}: cannot be locked: {error.strerror}; {remedy}") from error
    name = glob.escape(hidden(path, "").name)
    for left in (f"{name}.*{PARTIAL}", f"{name}.part[0-9]", f"{name}.part[0-9][0-9]", f".{name}.part*{PARTIAL}"):
        sweep(path.parent, left)
    return lock


def give_back(lock: FileLock) -> None:
    """Let others write the file that ``hold_output`` claimed."""
    Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it notices, and makes a new one
    lock.release()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _harmless_path(path: str) -> str:
    return f"./{path}" if path.startswith(_FORMULA_STARTS) else path
