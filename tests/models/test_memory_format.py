"""Tests of how a network lies in memory."""

from pathlib import Path

import pytest
from transformers import RegNetConfig, RegNetForImageClassification

from imgcls import ImageClassifier
from imgcls.cli.main import main


@pytest.mark.parametrize(("width", "lies"), [(8, False), (16, True)])
def test_a_thin_strided_shortcut_keeps_channels_first(width: int, lies: bool, photos: Path, tmp_path: Path) -> None:
    """In channels-last memory the process would end in the backward pass, on processors with AVX-512."""
    widths = [width, 16, 16, 16]
    config = RegNetConfig(embedding_size=width, hidden_sizes=widths, depths=[1, 1, 1, 1], groups_width=4, num_labels=3)
    RegNetForImageClassification(config).save_pretrained(tmp_path / "model")
    line = [f"--data.dataset_classes.train={photos}", f"--model.model_name={tmp_path}/model", "--data.num_workers=0"]
    main(["fit", *line, f"--experiment.output_dir={tmp_path}", "--trainer.max_epochs=1"])
    [last] = tmp_path.glob("*/version_0/checkpoints/last.ckpt")
    backbone = ImageClassifier.load_from_checkpoint(last).backbone
    assert backbone is not None
    assert backbone.channels_last is lies
