"""Which epoch, and which trial, is the best where several have the same value."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from torch import tensor

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.cli.main import main
from tests.helpers.runs import arguments, load
from tests.tune.test_study import trials_of, tune_line, write_config


def best_row(folder: Path) -> "pd.Series[Any]":
    """The epoch of metrics.csv that README calls the best."""
    table = pd.read_csv(folder / "metrics.csv")
    ranked = table.sort_values(["validation_f1_score", "validation_loss"], ascending=[False, True])
    equal = table[table["validation_f1_score"] == ranked["validation_f1_score"].iloc[0]]
    assert len(equal) > 1, "the case is not there"
    assert equal["validation_loss"].iloc[0] > equal["validation_loss"].min(), "the case is not there"
    return ranked.iloc[0]


def test_among_equal_epochs_the_lower_validation_loss_wins_also_after_a_resume(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--model.scheduler_config.name=constant")]
    line += ["--seed_everything=5"]  # all epochs have the same score
    for more in (["--trainer.max_epochs=4"], ["--trainer.max_epochs=6", "--ckpt_path=last"]):
        main([*line, *more])
        folder = tmp_path / "run/version_0"
        best = best_row(folder)
        state = load(folder / "checkpoints/last.ckpt")["callbacks"]["CheckpointSaver"]
        assert state["best_epoch"] == best["epoch"] == load(folder / "checkpoints/best.ckpt")["epoch"]
        assert state["best_values"]["validation_loss"] == pytest.approx(best["validation_loss"])


def logged(epoch: int, score: float, loss: float) -> Any:
    values = {"validation_f1_score": tensor(score), "validation_loss": tensor(loss)}
    return SimpleNamespace(current_epoch=epoch, global_step=-1, callback_metrics=values)


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(1.0, 0.3), (1.0, 0.1), (1.0, 0.2)], 1),
        ([(1.0, 0.1), (1.0, 0.1)], 0),
        ([(0.9, 0.1), (1.0, 0.3), (0.9, 0.05)], 1),
        ([(float("nan"), 0.1), (0.5, 0.3), (0.5, float("nan"))], 1),
    ],
)
def test_a_resumed_saver_compares_as_the_one_before(epochs: list[tuple[float, float]], best: int) -> None:
    saver = CheckpointSaver(Path(), "validation_f1_score", "max")
    for epoch, values in enumerate(epochs):
        state = saver.state_dict()
        saver = CheckpointSaver(Path(), "validation_f1_score", "max")
        saver.load_state_dict(state)
        saver._improved(logged(epoch, *values))
    assert saver.best_epoch == best


def test_among_equal_trials_the_lower_validation_loss_wins(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    rates = {"distribution": "categorical", "choices": [0.002, 0.01, 0.02]}
    section = {"n_trials": 3, "search_spaces": {"model.init_args.optimizer_config.lr": rates}}
    main(tune_line(write_config(tmp_path / "c.yaml", section), photos, tiny_model, tmp_path, "--trainer.max_epochs=4"))
    folder = tmp_path / "run/tune"
    trials = trials_of(folder)
    equal = [trial for trial in trials if trial.values == max(trial.values for trial in trials)]
    assert len(equal) > 1, "the case is not there"
    best = min(equal, key=lambda trial: float(trial.user_attrs["validation_loss"]))
    assert best.number != equal[0].number, "the case is not there"
    assert (folder / "best.ckpt").samefile(folder / f"trial_{best.number:04d}/checkpoints/best.ckpt")
