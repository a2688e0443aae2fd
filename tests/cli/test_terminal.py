"""What a run shows on a real terminal."""

import re
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from imgcls.cli.main import main
from tests.helpers.runs import arguments
from tests.helpers.terminal import Terminal

_EPOCH_BAR = r"Epoch 3/12 ━.* \d/6 +train loss \d\.\d{4} +[\d,.]+ images/s +\d+ s left"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_each_epoch_is_a_whole_line_above_one_bar(
    width: int, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.callbacks.live_bar.BAR_SECONDS", 0.0)  # every step is drawn
    terminal = Terminal(width)
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=12", "--trainer.callbacks=EarlyStopping")
    with terminal.taken(monkeypatch):
        main(["fit", *line, "--trainer.callbacks.monitor=train_loss", "--trainer.callbacks.verbose=true"])
    epochs = [text for text in terminal.shown if re.match(r"epoch \d", text)]
    rows = pd.read_csv(tmp_path / "run/version_0/metrics.csv").to_dict("records")
    assert [text.rpartition("  ")[0] for text in epochs] == [
        f"epoch {row['epoch'] + 1}/12  train_loss {row['train_loss']:.4f}  "
        f"validation: loss {row['validation_loss']:.4f}, f1_score {row['validation_f1_score']:.4f}"
        for row in rows
    ]
    assert len([text for text in terminal.shown if text.startswith("Metric train_loss improved")]) > 1
    bars = [bar for bars in terminal.bars for bar in bars]
    assert max(map(len, terminal.bars)) == 1
    assert any(re.fullmatch(_EPOCH_BAR, bar) for bar in bars), bars
    assert any(re.match(r"Epoch 3/12 ━.* \d/2 +validating", bar) for bar in bars), bars
    assert any(bar.startswith("Validation ━") for bar in bars)  # of the best epoch
    assert [text for text in terminal.shown if "images/s" in text] == []  # no bar is left behind
    pairs = [pair for screen in terminal.screens for pair in pairwise(screen)]
    below = {int(bar[6]) for line, bar in pairs if line.startswith("epoch 2/12") and bar.startswith("Epoch")}
    assert below == {3}
    assert max(map(len, terminal.shown[: terminal.shown.index(epochs[-1])])) <= width


def test_evaluation_and_prediction_have_a_bar_of_their_own(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.callbacks.live_bar.BAR_SECONDS", 0.0)
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    checkpoint = f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt"
    lines = {
        "Test": ["test", f"--data.dataset_classes.test={test_photos}"],
        "Prediction": ["predict", f"--images={photos}"],
    }
    for name, line in lines.items():
        terminal = Terminal(80)
        with terminal.taken(monkeypatch):
            main([*line, checkpoint, "--data.batch_size=4"])
        bars = [bar for bars in terminal.bars for bar in bars]
        assert any(re.fullmatch(rf"{name} ━.* \d+/\d+ +[\d,.]+ images/s +\d+ s left", bar) for bar in bars), bars
        assert max(map(len, terminal.bars)) == 1
