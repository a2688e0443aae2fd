"""Run folders with given predictions, curves and properties, written as a fit writes them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.results.run import Run, read_run
from imgcls.runtime.tables import write_table


def fake_run(
    folder: Path,
    labels: NDArray[np.int64],
    probs: NDArray[np.float64],
    names: Sequence[str],
    *,
    trained: Sequence[int] | None = None,
    split: str = "test",
    properties: Mapping[str, Sequence[Any]] | None = None,
) -> Run:
    """Write a run whose evaluated images are ``test/0``, ``test/1``, …, and whose training images are ``train/0``, ….

    Args:
        folder: The run folder.
        labels: ``(N,)`` class indices.
        probs: ``(N, C)``.
        names: C classes.
        trained: Training images of each class; None for 100 each.
        split: The evaluated split.
        properties: Columns of image_properties.csv, of the training images in the order of the classes, then of the
            evaluated ones; None for no such file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = [names[label] for label in labels]
    header = ["path", "label", "prediction", "probability", *(f"prob_{name}" for name in names), "error"]
    best = probs.argmax(axis=1)
    rows = [
        [path, label, names[index], values[index], *values, ""]
        for path, label, index, values in zip(_paths(split, len(labels)), given, best, probs.tolist(), strict=True)
    ]
    with (folder / f"{split}_predictions.csv").open("w", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([header, *rows])
    counts = [100] * len(names) if trained is None else trained
    of_train = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    parts = [
        pd.DataFrame({"path": _paths(part, len(each)), "label": each, "split": part}, dtype=object)
        for part, each in (("train", of_train), (split, given))
    ]
    splits = pd.concat(parts, ignore_index=True)
    write_table(folder / "splits.csv", splits.assign(content=[f"hash {row}" for row in range(len(splits))]))
    if properties is not None:
        blank = {"width": 32, "height": 32, "format": "PNG", "brightness": 100.0}  # of all
        images = pd.DataFrame({"path": splits["path"], "split": splits["split"], **blank, **properties})
        write_table(folder / "image_properties.csv", images)
    return read_run(folder)


def write_history(folder: Path, max_epochs: int = 20, **columns: Sequence[float]) -> None:
    """Write metrics.csv with the given columns, and the part of config.yaml that limits the run."""
    epochs = len(next(iter(columns.values())))
    rows = {"epoch": range(epochs), "step": range(10, 10 * epochs + 10, 10), **columns}
    write_table(folder / "metrics.csv", pd.DataFrame(rows))
    (folder / "config.yaml").write_text(json.dumps({"trainer": {"max_epochs": max_epochs, "max_steps": -1}}))


def probabilities(
    labels: NDArray[np.int64], classes: int, generator: np.random.Generator, wrong: Mapping[int, tuple[int, float]]
) -> NDArray[np.float64]:
    """Return probabilities of right predictions, 0.6 to 1, but for ``wrong``: index -> class, probability."""
    chosen = {index: (int(label), generator.uniform(0.6, 1)) for index, label in enumerate(labels)} | dict(wrong)
    probs = np.zeros((len(labels), classes))
    for index, (predicted, value) in chosen.items():
        probs[index] = (1 - value) / (classes - 1)
        probs[index, predicted] = value
    return probs


def _paths(split: str, count: int) -> list[str]:
    return [f"{split}/{number}" for number in range(count)]
