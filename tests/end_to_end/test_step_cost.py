"""A training step never makes the device wait for the host.

The run is the real one, with all callbacks that ``fit`` adds, on the meta device: host and device are apart there, so
each value that passes from the one to the other is seen with its place in the code.
"""

from pathlib import Path

import pytest
import torch

import imgcls
from imgcls.cli.main import main
from imgcls.models.training.fit_hooks import _seed
from imgcls.types import Batch
from tests.benchmarks import step_cost
from tests.helpers.meta import CountWaits, Waits
from tests.helpers.runs import arguments

ON_META = (
    "--trainer.accelerator={class_path: tests.helpers.meta.MetaAccelerator}",
    "--trainer.strategy={class_path: tests.helpers.meta.MetaStrategy}",
    "--trainer.precision=32-true",
    "--data.batch_size=4",
)
COUNTER = "{class_path: tests.helpers.meta.CountWaits}"
BAR = "{class_path: lightning.pytorch.callbacks.RichProgressBar, init_args: {refresh_rate: 1}}"


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_benchmark_of_the_step_runs(tmp_path: Path) -> None:
    assert step_cost.our_gap(tmp_path) > 0


def count(photos: Path, model: Path, out: Path, *more: str, callbacks: str = COUNTER) -> Waits:
    CountWaits.last_run = None
    with pytest.raises(SystemExit):
        main(["fit", *arguments(photos, model, out, *ON_META, f"--trainer.callbacks=[{callbacks}]", *more)])
    assert CountWaits.last_run is not None
    return CountWaits.last_run.waits


@pytest.mark.parametrize(
    "more",
    [
        (),
        (
            "--model.optimizer_config={name: sgd, momentum: 0.9}",
            "--model.freeze_encoder=0.5",
            "--model.feature_views=null",
        ),
        ("--trainer.gradient_clip_val=1.0", "--trainer.accumulate_grad_batches=2"),
        ("--model.mix_config={mixup: 0.2, cutmix: 1.0}", "--model.loss_config={label_smoothing: 0.1}"),
        ("--model.loss_config={focal_gamma: 2.0, class_weights: auto}", "--model.scheduler_config.name=plateau"),
    ],
)
def test_steps_wait_for_nothing(more: tuple[str, ...], photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    waits = count(photos, tiny_model, tmp_path, *more)
    assert waits.operations > 300  # three steps
    assert waits.found == []


def test_averaged_weights_wait_for_nothing(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert count(photos, tiny_model, tmp_path, callbacks=f"{COUNTER}, {{class_path: imgcls.EMA}}").found == []


def test_a_progress_bar_waits_for_nothing(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert count(photos, tiny_model, tmp_path, callbacks=f"{COUNTER}, {BAR}").found == []


def test_the_live_bar_waits_for_nothing_between_two_drawings(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcls.callbacks.live_bar.BAR_SECONDS", 1e9)
    bar = "{class_path: imgcls.callbacks.live_bar.LiveBar}"
    assert count(photos, tiny_model, tmp_path, callbacks=f"{COUNTER}, {bar}").found == []


def test_logging_each_step_waits_once_a_step(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The count sees what is there."""
    found = count(photos, tiny_model, tmp_path, "--trainer.log_every_n_steps=1").found
    assert len(found) == 3
    assert all("a value is read: " in wait and "metrics_logger.py" in wait for wait in found)


def test_batches_come_in_pinned_memory(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From other memory a copy to a GPU blocks, whatever is asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = imgcls.ImageDataModule(
        imgcls.DatasetClasses(train=str(photos)),
        imgcls.Augmentations(*[[{"class_path": "albumentations.Resize", "init_args": {"height": 8, "width": 8}}]] * 2),
        num_workers=0,
    )
    data.setup("fit")
    assert data.train_dataloader().pin_memory
    assert data.val_dataloader().pin_memory


def test_a_step_is_seeded_as_by_torch() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    _seed(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_paths_stay_and_tensors_move() -> None:
    batch = Batch(image=torch.zeros(1, 3, 2, 2), label=torch.zeros(1, dtype=torch.int64), path=["a"])
    moved = imgcls.ImageDataModule().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["image"].is_meta
    assert moved["label"].is_meta
    assert moved["path"] == ["a"]
