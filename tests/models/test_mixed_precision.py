"""Logits of a fit in mixed precision: those of a head in float32, whatever else is asked for."""

from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from imgcls.cli.main import main
from imgcls.models.training import torch_compile
from tests.helpers.runs import arguments


class Logits(Callback):
    """Keeps the logits of training and validation."""

    found: ClassVar[list[Tensor]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.found.append(outputs["logits"])

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.found.append(outputs["logits"])


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--model.compile=true",),
        ("--model.freeze_encoder=true",),
        ("--model.freeze_encoder=0.5", "--model.feature_views=2"),
        ("--model.mix_config.mixup=0.2", "--model.loss_config={class_weights: auto, focal_gamma: 2}"),
    ],
)
def test_logits_are_float32(
    more: tuple[str, ...], photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(torch_compile, "BACKEND", "eager")
    Logits.found.clear()
    line = arguments(photos, tiny_model, tmp_path, "--trainer.precision=bf16-mixed", "--trainer.max_epochs=1", *more)
    main(["fit", *line, "--trainer.callbacks={class_path: tests.models.test_mixed_precision.Logits}"])
    assert len(Logits.found) >= 8
    assert {logits.dtype for logits in Logits.found} == {torch.float32}
    assert all((logits != logits.bfloat16()).any() for logits in Logits.found)
