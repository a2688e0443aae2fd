"""Layers that are thawed in the course of a run."""

import signal
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch

from imgcls.cli.main import main
from imgcls.errors import ConfigError
from imgcls.models.training.frozen_layers import FrozenFraction
from tests.data.feature_cache.test_frozen_encoder import metrics
from tests.end_to_end.test_resume import assert_equal
from tests.helpers.runs import arguments, assert_same_weights, fails, load, program, weights

KILLER = "{class_path: tests.helpers.killer.Killer, init_args: {epoch: 3, batch: 3}}"
GRADUAL = ["--model.freeze_encoder=true", "--model.unfreeze={2: 0.5, 4: 0.0}", "--trainer.max_epochs=5"]
KEEP_ALL = "{class_path: ModelCheckpoint, init_args: {save_top_k: -1, monitor: validation_loss, filename: 'e{epoch}', "
EARLY = "embedder.embedder.convolution"
LATE = "stages.1.layers.0"


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_layers_learn_from_their_epoch_on(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = f"--trainer.callbacks=[{KEEP_ALL} auto_insert_metric_name: false}}}}]"
    main(["fit", *arguments(photos, tiny_model, tmp_path, *GRADUAL, keep)])
    said = capsys.readouterr().err
    assert "18 of 18 layers frozen" in said
    assert "from epoch 3 on: 9 of 18 layers frozen" in said
    assert "from epoch 5 on: 0 of 18 layers frozen" in said
    assert "model.init_args.unfreeze: feature cache off" in said
    assert "computed once" not in said
    folder = tmp_path / "run/version_0/checkpoints"
    states = [weights(folder / f"e{epoch}.ckpt") for epoch in range(5)]
    first, second, third, fourth = (changed(*pair) for pair in pairwise(states))
    heads = {name for name in states[0] if ".heads." in name}
    assert first == heads
    for names in (second, third):
        assert heads < names
        assert any(LATE in name and "running_mean" in name for name in names)
        assert not any(EARLY in name or "embedder.normalization" in name for name in names)
    assert any(EARLY in name for name in fourth)
    assert any("embedder.embedder.normalization.running_mean" in name for name in fourth)


def test_resumed_run_goes_on_with_the_layers_of_its_epoch(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole", *GRADUAL)])
    line = arguments(photos, tiny_model, tmp_path / "killed", *GRADUAL)
    killed = program("fit", *line, f"--trainer.callbacks=[{KILLER}]")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    main(["fit", *line, "--ckpt_path=last"])
    whole, resumed = tmp_path / "whole/run/version_0", tmp_path / "killed/run/version_0"
    assert_same_weights(whole / "checkpoints/last.ckpt", resumed / "checkpoints/last.ckpt")
    ours, theirs = (load(folder / "checkpoints/last.ckpt") for folder in (whole, resumed))
    assert_equal(ours["optimizer_states"], theirs["optimizer_states"])
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    pd.testing.assert_frame_equal(metrics(whole), metrics(resumed), check_exact=True)


def test_shares_by_epoch() -> None:
    share = FrozenFraction(True, {5: 0.25, 2: 0.5})
    assert [share.at(epoch) for epoch in (0, 1, 2, 4, 5, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert share.least == 0.25


@pytest.mark.parametrize(
    ("first", "later", "message"),
    [
        (0.5, {2: 0.5}, r"unfreeze: the fraction must decrease over epochs .*, but epoch 2 has 0.5 after 0.5"),
        (True, {2: 0.5, 4: 0.75}, r"epoch 4 has 0.75 after 0.5"),
        (True, {2: -0.5}, r"epoch 2 has -0.5 after"),
        (True, {0: 0.5}, r"unfreeze: epochs must be at least 1, got 0"),
        (False, {1: 0.5}, r"epoch 1 has 0.5 after 0.0"),
    ],
)
def test_shares_that_do_not_fall_are_refused(first: float, later: dict[int, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FrozenFraction(first, later)


def test_command_refuses_shares_that_do_not_fall(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(photos, tiny_model, tmp_path, "--model.freeze_encoder=0.5", "--model.unfreeze={1: 0.8}")
    code, message = fails(["fit", *line], capsys)
    assert code == 2
    assert "model.init_args.unfreeze: the fraction must decrease over epochs" in message
    assert "epoch 1 has 0.8 after 0.5" in message
