"""A frozen encoder: features that are computed once stand for the images."""

import re
import shutil
import signal
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch

import imgcls.data.feature_cache.store
from imgcls.cli.main import main
from imgcls.data.feature_cache.store import FeatureStore
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, assert_same_weights, fails, load, program, weights

FROZEN = ("--model.freeze_encoder=true", "--trainer.precision=32")
KILLER = "{class_path: tests.helpers.killer.Killer, init_args: {epoch: 2, batch: 3}}"
FIXED = "[{class_path: albumentations.Resize, init_args: {height: 32, width: 32}}]"


def fit(photos: Path, model: Path, out: Path, *more: str) -> Path:
    main(["fit", *arguments(photos, model, out, *more)])
    return out / "run/version_0"


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights within 1e-5, and the metrics of every epoch."""
    first, second = weights(ours / "checkpoints/last.ckpt"), weights(theirs / "checkpoints/last.ckpt")
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(metrics(ours), metrics(theirs), rtol=0, atol=1e-5)


def metrics(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.parametrize(
    "more",
    [
        ("--model.feature_views=1", f"--data.augmentations.train={FIXED}"),
        ("--model.feature_views=4", "--data.num_workers=2"),  # as many views as epochs: those of the long way
    ],
)
def test_features_give_the_run_of_the_long_way(
    more: tuple[str, ...], photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (*FROZEN, "--trainer.max_epochs=4", *more)
    short = fit(photos, tiny_model, tmp_path / "short", *more)
    said = capsys.readouterr().err
    assert "18 of 18 layers frozen, 0.0 of 0.0 M parameters; trains only the head" in said
    assert re.search(r"\d augmented versions? of each image reused in all 4 epochs", said)
    long = fit(photos, tiny_model, tmp_path / "long", *more, "--model.feature_views=null")
    assert "computed once" not in capsys.readouterr().err
    assert_same_run(short, long)


def test_images_are_read_once_for_each_view(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The images may be gone once the epochs begin."""
    shutil.copytree(photos, tmp_path / "photos")
    vanish = f"{{class_path: {__name__}.Vanishing, init_args: {{folder: {tmp_path / 'photos'}}}}}"
    folder = fit(
        tmp_path / "photos",
        tiny_model,
        tmp_path,
        *FROZEN,
        "--trainer.max_epochs=3",
        "--data.train_on_validation=true",
        "--trainer.limit_val_batches=0",
        f"--trainer.callbacks=[{vanish}]",
    )
    assert list(metrics(folder)["epoch"]) == [0, 1, 2]


class Vanishing(pl.Callback):
    """Removes the images when the first epoch begins."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def test_views_take_turns(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Without learning, the loss of an epoch is that of its view."""
    still = (*FROZEN, "--trainer.max_epochs=4", "--model.optimizer_config.lr=1e-30", "--model.feature_views=2")
    losses = metrics(fit(photos, tiny_model, tmp_path, *still))["train_loss"].round(5)
    assert losses[0] == losses[2] != losses[1] == losses[3]


def test_resumed_run_on_features_is_the_same_bit_for_bit(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = [*FROZEN, "--trainer.max_epochs=5", "--model.feature_views=2"]
    whole = fit(photos, tiny_model, tmp_path / "whole", *more)
    line = arguments(photos, tiny_model, tmp_path / "killed", *more)
    killed = program("fit", *line, f"--trainer.callbacks=[{KILLER}]")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    main(["fit", *line, "--ckpt_path=last"])
    resumed = tmp_path / "killed/run/version_0"
    assert_same_weights(whole / "checkpoints/last.ckpt", resumed / "checkpoints/last.ckpt")
    pd.testing.assert_frame_equal(metrics(whole), metrics(resumed), check_exact=True)


def test_bad_images_are_reported_and_left_out(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_class_folders(tmp_path / "photos", 20)
    for name in ("red/004.png", "blue/007.png"):  # the header is whole
        path = photos / name
        path.write_bytes(path.read_bytes()[:1000])
    skip = ("--data.on_bad_image=skip", "--data.max_bad_fraction=0.2", *FROZEN)
    short = fit(photos, tiny_model, tmp_path / "short", *skip, f"--data.augmentations.train={FIXED}")
    said = capsys.readouterr().err
    assert said.count("red/004.png: ") == said.count("blue/007.png: ") == 1
    assert '"used": 58' in (short / "data.json").read_text()
    more = (f"--data.augmentations.train={FIXED}", "--model.feature_views=null")
    assert_same_run(short, fit(photos, tiny_model, tmp_path / "long", *skip, *more))
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, *FROZEN)], capsys)
    assert code == 2
    assert "--data.on_bad_image skip" in message


def test_features_lie_in_a_file_where_memory_is_small(
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = f"--data.cache_dir={tmp_path / 'cache'}"
    in_memory = fit(photos, tiny_model, tmp_path / "memory", *FROZEN, cache)
    monkeypatch.setattr(imgcls.data.feature_cache.store, "available_memory", lambda: 0)
    on_disk = fit(photos, tiny_model, tmp_path / "disk", *FROZEN, cache)
    said = capsys.readouterr().err
    assert "in memory" in said
    assert "on disk" in said
    assert_same_weights(in_memory / "checkpoints/last.ckpt", on_disk / "checkpoints/last.ckpt")
    assert list((tmp_path / "cache/features").iterdir()) == []


def test_features_that_fit_nowhere_are_computed_anew(
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(imgcls.data.feature_cache.store, "available_memory", lambda: 0)
    monkeypatch.setattr(imgcls.data.feature_cache.store, "_DISK_MARGIN", 1e15)
    folder = fit(photos, tiny_model, tmp_path, *FROZEN)
    said = capsys.readouterr().err
    assert re.search(
        r"features: .* MB for 1 augmented version of 48 images do not fit \(.* GB are free in .*\): .* recomputed", said
    )
    assert "computed once" not in said
    assert load(folder / "checkpoints/last.ckpt")["epoch"] == 1


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--trainer.fast_dev_run=true", "trainer.fast_dev_run"),
        ("--trainer.overfit_batches=2", "trainer.overfit_batches: 2"),
        ("--trainer.limit_train_batches=0.5", "trainer.limit_train_batches: 0.5"),
    ],
)
def test_options_that_read_a_part_of_the_data(
    option: str, reason: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, *FROZEN, option)])
    said = capsys.readouterr().err
    assert f"{reason}: feature cache off: features are recomputed every epoch" in said
    assert "reused in" not in said


def test_views_must_be_at_least_one(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, "--model.feature_views=0")], capsys)
    assert code == 2
    assert "model.init_args.feature_views must be at least 1, or null, got 0" in message


@pytest.mark.parametrize(("kinds", "limit", "use"), [("", "memory.max", "memory.current"), ("memory", "most", "use")])
def test_available_memory_is_what_the_groups_of_the_process_leave(
    kinds: str, limit: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "tree/slurm/job_7"
    (job / "step_0").mkdir(parents=True)
    for folder, values in ((job / "step_0", ("max", "5")), (job, ("3000", "1000")), (tmp_path / "tree", ("9000", "0"))):
        for name, value in zip((limit, use), values, strict=True):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / "groups").write_text(f"9:cpu:/other\n0:{kinds}:/slurm/job_7/step_0\n")
    feature_store = imgcls.data.feature_cache.store
    monkeypatch.setattr(feature_store, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(feature_store, "_CGROUP_LIMITS", {kinds: (tmp_path / "tree", limit, use)})
    assert feature_store.available_memory() == 2000


def test_a_system_that_reserves_no_room_keeps_features_in_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imgcls.data.feature_cache.store, "available_memory", lambda: 0)
    monkeypatch.delattr("os.posix_fallocate")
    with pytest.raises(OSError, match="this system cannot reserve space for a file"):
        FeatureStore(2, 8, torch.zeros(5, 7), tmp_path)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 4, 2), (5, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("free", [0.0, 1e9])
def test_store_gives_back_what_it_took(
    shape: tuple[int, ...], dtype: torch.dtype, free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imgcls.data.feature_cache.store, "available_memory", lambda: free)
    features = torch.randn(shape).to(dtype)
    if len(shape) == 4:
        features = features.contiguous(memory_format=torch.channels_last)
    store = FeatureStore(2, 8, features, tmp_path)
    store.put(1, [0, 1, 2, 3, 7], features)
    assert store.is_on_disk == (free == 0)
    taken = store.get(1, [7, 0])
    assert torch.equal(taken, features[[4, 0]])
    assert taken.dtype == dtype
    assert len(shape) < 4 or taken.is_contiguous(memory_format=torch.channels_last)
    assert store.present.sum(1).tolist() == [0, 5]
