"""PredictionsWriter: one CSV row for each input image, written while predicting."""

import csv
import os
import tempfile
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TextIO

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from imgcls.datasets.labels import SEPARATOR, to_text
from imgcls.errors import ConfigError
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
        self._partial = self._part(0)
        self._file: TextIO | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the head of the table."""
        check_output(self.path)
        self._partial = self._part(trainer.global_rank)
        try:
            self._file = _open(self._partial, "w")
        except OSError as error:
            raise ConfigError(f"--output {self.path}: cannot be written: {error.strerror}") from error
        if trainer.is_global_zero:
            columns = [f"prob_{name}" for name in self.class_names]
            csv.writer(self._file).writerow(["path", "prediction", "probability", *columns, "error"])

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
        writer = csv.writer(self._file)  # type: ignore[arg-type]
        finite = probs.isfinite().all(dim=1).tolist()
        reasons = [error or ("" if fine else _NO_NUMBERS) for error, fine in zip(batch["error"], finite, strict=True)]
        for path, row, found, error in zip(batch["path"], texts, places, reasons, strict=True):
            result = ["", ""] + [""] * len(row) if error else [*self._answer(found, row), *row]
            writer.writerow([_harmless_path(path), *result, error])
            self.errors += bool(error)
        self.rows += len(texts)
        self._file.flush()  # type: ignore[union-attr]

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
        self._close()
        counts = gather((self.rows, self.errors))  # from here on all parts are complete
        self.rows, self.errors = (sum(column) for column in zip(*counts, strict=True))
        if not trainer.is_global_zero:
            return
        self._lay_together([self._part(rank) for rank in range(1, len(counts))])
        os.replace(self._partial, self.path)

    def _part(self, rank: int) -> Path:
        number = f".{rank}" if rank else ""
        return self.path.with_name(f".{self.path.name}{number}.partial")

    def _lay_together(self, others: list[Path]) -> None:
        """Put the parts' rows in turns, as the sampler shared out the images."""
        if not others:
            return
        whole = self._part(len(others) + 1)
        with ExitStack() as files:
            parts = [csv.reader(files.enter_context(_open(path, "r"))) for path in (self._partial, *others)]
            writer = csv.writer(files.enter_context(_open(whole, "w")))
            writer.writerow(next(parts[0]))
            for rows in zip_longest(*parts):
                writer.writerows(row for row in rows if row is not None)
        os.replace(whole, self._partial)
        for path in others:
            path.unlink()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no half file behind."""
        if self._file is not None:
            self._close()
            self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _open(path: Path, mode: Literal["r", "w"]) -> TextIO:
    # file names may hold bytes that are no text; they are written as they are
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


def check_output(path: str | os.PathLike[str], option: str = "--output", example: str = "predictions.csv") -> None:
    """Refuse a file that cannot be written, before the work begins; its folder is made.

    Args:
        path: The file, as it was typed: one that ends with a slash is a folder, also where there is none yet.
        option: The option that names it.
        example: The name of such a file.

    Raises:
        ConfigError: If it is a folder or a device, or its folder cannot be made or written to.
    """
    file = Path(path).expanduser()
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


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _harmless_path(path: str) -> str:
    return f"./{path}" if path.startswith(_FORMULA_STARTS) else path
