"""TrainPredictions: the mean of the probabilities of each training image over the epochs from the second on."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import imgcls
from imgcls.callbacks.train_predictions import TrainPredictions
from imgcls.cli.main import main
from imgcls.errors import WriteError
from imgcls.results.predictions import read_predictions
from tests.helpers.runs import arguments

FILE = "train_predictions.csv"


class Recorder(Callback):
    """Keep epoch, paths and logits of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[str], torch.Tensor]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a step."""
        self.steps.append((trainer.current_epoch, batch["path"], outputs["logits"].detach().float()))


@pytest.mark.parametrize("balanced", [False, True], ids=["each once", "drawn with replacement"])
def test_mean_over_the_epochs(photos: Path, tiny_model: Path, tmp_path: Path, balanced: bool) -> None:
    recorder = Recorder()
    run = imgcls.fit(
        model={"model_name": str(tiny_model), "pretrained": False},
        data={
            "dataset_classes": {"train": str(photos)},
            "batch_size": 8,
            "num_workers": 0,
            "balanced_sampling": balanced,
        },
        trainer={"max_epochs": 3, "callbacks": [recorder]},
        experiment={"output_dir": str(tmp_path)},
    )
    folder = run.run_folder
    assert folder is not None
    found = read_predictions(folder / FILE)
    expected: dict[str, list[np.ndarray[Any, Any]]] = {}
    for epoch, paths, logits in recorder.steps:
        for path, probs in zip(paths, torch.softmax(logits, 1).numpy(), strict=True):
            expected.setdefault(path, []).extend([probs] * (epoch > 0))
    expected = {path: values for path, values in expected.items() if values}
    assert set(found.paths) == set(expected)
    means = np.array([np.mean(expected[path], axis=0) for path in found.paths])
    np.testing.assert_allclose(found.probs, means, atol=1e-6)
    splits = pd.read_csv(folder / "splits.csv").set_index("path")
    labels = splits.query("split == 'train'")["label"]
    assert [found.class_names[label] for label in found.labels] == labels[found.paths].tolist()


@pytest.mark.parametrize(
    "more", [["--trainer.max_epochs=1"], ["--model.mix_config.mixup=0.2"], ["--experiment.report=false"]], ids=str
)
def test_no_file_where_there_is_no_mean(photos: Path, tiny_model: Path, tmp_path: Path, more: list[str]) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--experiment.report=true", *more)])
    assert (tmp_path / "run/version_0/validation_predictions.csv").exists()
    assert not (tmp_path / "run/version_0" / FILE).exists()


def test_a_file_that_cannot_be_written_does_not_lose_the_fit(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise WriteError("no space left on device")

    monkeypatch.setattr(TrainPredictions, "_write", fail)
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--experiment.report=true", "--trainer.max_epochs=2")])
    assert "No train_predictions.csv: WriteError: no space left on device" in capsys.readouterr().err
    assert (tmp_path / "run/version_0/report.html").exists()
