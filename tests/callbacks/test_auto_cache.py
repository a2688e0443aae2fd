"""``create_dataset: auto``: when a cache is built, where the decision is kept, and that a resumed run obeys it."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from lightning.pytorch.callbacks import Callback

from imgcls.callbacks import auto_cache
from imgcls.cli.main import main
from imgcls.data.config import DatasetClasses
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.pixel_cache.store import INDEX, PIXELS, Writer
from imgcls.data.splitting.split import Split
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError
from imgcls.images import Pixels, load_image
from tests.helpers.runs import arguments, assert_same_weights, load

PAUSE = 0.02  # seconds that reading an image takes, far more than a step


class Slow:
    """Reads files slowly, and counts them."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: str, *more: int) -> Pixels:
        time.sleep(PAUSE)
        self.read.append(path)
        return load_image(path, *more)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Slow reading, of which a tenth of a second is worth a cache."""
    reading = Slow()
    monkeypatch.setattr("imgcls.datasets.dataset.load_image", reading)
    monkeypatch.setattr(Split, "first_readable", lambda _: None)
    monkeypatch.setattr(auto_cache, "_SECONDS", 0.1)
    return reading


class Stop(Callback):
    """Interrupts the third epoch, after its second step."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 2 and batch_idx == 1:
            raise KeyboardInterrupt


def line(photos: Path, tiny_model: Path, out: Path, *more: str, epochs: int = 4) -> list[str]:
    cache = f"--data.cache_dir={out}/cache"
    return ["fit", *arguments(photos, tiny_model, out, f"--trainer.max_epochs={epochs}", cache, *more)]


def decision(out: Path) -> tuple[Any, Any]:
    """What config.yaml and the last checkpoint record."""
    config = yaml.safe_load((out / "run/version_0/config.yaml").read_text(encoding="utf-8"))
    state = load(out / "run/version_0/checkpoints/last.ckpt")["ImageDataModule"]
    return config["data"]["init_args"]["create_dataset"], state.get("create_dataset")


def test_a_cache_is_built_after_an_epoch_of_waiting_and_a_resumed_run_uses_it(
    photos: Path, tiny_model: Path, tmp_path: Path, slow: Slow, said: pytest.LogCaptureFixture
) -> None:
    main(line(photos, tiny_model, tmp_path / "whole"))
    messages = [text for text in said.messages if "waits for data" in text]
    assert len(messages) == 1
    assert "building a cache of decoded images, about 0." in messages[0]
    assert "--data.create_dataset false" in messages[0]
    assert decision(tmp_path / "whole") == (True, True)
    whole = len(slow.read)
    assert whole == 2 * 60 + 16  # one epoch, the cache, and the images from which its size is estimated

    stopping = f"--trainer.callbacks={{class_path: {__name__}.Stop}}"
    with pytest.raises(SystemExit):
        main(line(photos, tiny_model, tmp_path / "again", stopping))
    assert decision(tmp_path / "again") == (True, True)
    slow.read.clear()
    main(line(photos, tiny_model, tmp_path / "again", "--ckpt_path=last"))
    assert slow.read == []
    assert decision(tmp_path / "again") == (True, True)
    assert not any("Changed since" in text and "create_dataset" in text for text in said.messages)
    last = "run/version_0/checkpoints/last.ckpt"
    assert_same_weights(tmp_path / "whole" / last, tmp_path / "again" / last)


@pytest.mark.parametrize(
    ("more", "recorded"),
    [
        (["--trainer.deterministic=true"], ("auto", None)),
        (["--data.content_hash=none"], ("auto", None)),
        (["--trainer.limit_train_batches=2"], (False, False)),  # two of six batches: decoding all is not repaid
    ],
)
def test_no_cache(
    more: list[str], recorded: tuple[Any, Any], photos: Path, tiny_model: Path, tmp_path: Path, slow: Slow
) -> None:
    main(line(photos, tiny_model, tmp_path, *more, epochs=3))
    assert decision(tmp_path) == recorded
    assert not (tmp_path / "cache/pixels").exists()


@pytest.mark.usefixtures("slow")
def test_a_single_epoch_decides_nothing(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(line(photos, tiny_model, tmp_path, epochs=1))
    assert decision(tmp_path) == ("auto", None)


def test_short_waits_are_noise(
    photos: Path, tiny_model: Path, tmp_path: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_cache, "_SECONDS", 10.0)
    main(line(photos, tiny_model, tmp_path, epochs=2))
    assert decision(tmp_path) == (False, False)


def test_a_small_disk_gets_no_cache(
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    slow: Slow,
    said: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto_cache, "free_bytes", lambda _: 100_000)
    main(line(photos, tiny_model, tmp_path, epochs=3))
    [message] = [text for text in said.messages if "waits for data" in text]
    assert "where 0.1 MB are free: to build it, use --data.create_dataset true with --data.cache_dir" in message
    assert decision(tmp_path) == (False, False)


def test_a_disk_that_fills_up_loses_the_cache_and_not_the_run(
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    slow: Slow,
    said: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: object, file: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Writer, "_sync", full)
    main(line(photos, tiny_model, tmp_path, epochs=3))
    [warning] = [text for text in said.messages if "Training continues without the cache" in text]
    assert "is full" in warning
    [folder] = (tmp_path / "cache/pixels").iterdir()
    assert [(folder / name).stat().st_size for name in (PIXELS, INDEX)] == [0, 0]


class Own(FolderImageDataset):
    """A class of a user, which may read more than the file."""

    def read(self, index: int) -> Pixels:
        return super().read(index)


@pytest.mark.parametrize(("kind", "may"), [(FolderImageDataset, True), (Own, False)])
def test_classes_of_users_are_not_cached_unasked(
    kind: Callable[[str], FolderImageDataset], may: bool, photos: Path
) -> None:
    data = ImageDataModule(DatasetClasses(train=kind(str(photos))))
    assert data.may_decide_cache is may
    data.decide_cache(True)
    assert data.create_dataset is True
    assert not data.may_decide_cache


def test_other_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="create_dataset must be true, false or auto, got always"):
        ImageDataModule(create_dataset="always")  # type: ignore[arg-type]
