"""The table of predictions: what is counted while it is written."""

from pathlib import Path

import torch

from imgcls.predictions.prediction_file import PredictionFile
from imgcls.runtime.atomic_files import replacing


def test_predicted_classes_are_counted(tmp_path: Path) -> None:
    table = PredictionFile(tmp_path / "table.csv", ["a;b", "c", "d"], [0.5, 0.5, 0.5])
    batches = [[[0.9, 0.8, 0.1], [0.1, 0.7, 0.2]], [[0.1, 0.2, 0.3], [float("nan")] * 3]]
    with replacing(table.path) as file:
        table.begin(file, is_first=True)
        for batch, errors in zip(batches, (["", ""], ["", "cannot be read"]), strict=True):
            table.add(["x.png", "y.png"], torch.tensor(batch), errors)
    assert table.progress.predicted == {"a;b": 1, "c": 2}
    assert (table.progress.rows, table.progress.errors) == (4, 1)
