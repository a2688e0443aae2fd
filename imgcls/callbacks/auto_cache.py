"""AutoCache: build the cache of decoded images if the first epoch shows that it pays (``create_dataset: auto``)."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl

from imgcls.callbacks.data_wait_monitor import DataWaitMonitor
from imgcls.data.datamodule import ImageDataModule
from imgcls.errors import size_in_words
from imgcls.runtime.lightning_loops import epochs_in_all

log = logging.getLogger(__name__)

_SHARE = 0.2  # of an epoch spent waiting: the loader delivers less than 0.8 of what the steps could use
_SECONDS = 5.0  # of waiting in an epoch; less is not worth a cache, and may be the noise of a busy machine
_ROOM = 0.5  # of the free disk space that a cache may take


class AutoCache(DataWaitMonitor):
    """Decide at the end of the first epoch whether images come from a cache, and make new loaders if they do.

    Args:
        on_decided: Called in each process with the decision, before the epoch's checkpoint is saved.
    """

    def __init__(self, on_decided: Callable[[bool], None]) -> None:
        super().__init__(cached=False)
        self._on_decided = on_decided
        self._reload: int | None = None  # reload_dataloaders_every_n_epochs, while the loaders are made again

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decide, once; afterwards, log what ``DataWaitMonitor`` logs."""
        if trainer.val_dataloaders is None:
            self._end_reload(trainer)
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule) and data.may_decide_cache and self._epochs_left(trainer) >= 1:
            builds = bool(trainer.strategy.broadcast(trainer.is_global_zero and self._pays(trainer, data)))
            data.decide_cache(builds)
            self._on_decided(builds)
            if builds:
                self.cached = True
                # Lightning 2.6 makes new loaders, with new workers, in no other public way
                self._reload = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
                trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
                return
        super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the loaders: those of training and validation have been made again."""
        if not trainer.sanity_checking:
            self._end_reload(trainer)

    def _end_reload(self, trainer: pl.Trainer) -> None:
        if self._reload is not None:
            trainer.reload_dataloaders_every_n_epochs = self._reload  # type: ignore[attr-defined]
            self._reload = None

    def _epochs_left(self, trainer: pl.Trainer) -> float:
        stops = trainer.should_stop or trainer.fast_dev_run or trainer.overfit_batches  # type: ignore[attr-defined]
        return 0 if stops else epochs_in_all(trainer) - trainer.current_epoch - 1

    def _pays(self, trainer: pl.Trainer, data: ImageDataModule) -> bool:
        """Compare what the cache saves in the remaining epochs with the time and space that it takes."""
        images = len(data.split("train"))
        seen = max(self._steps * data.batch_size, 1)
        building = self.seconds * max(images / seen, 1)  # images are decoded as fast as they were delivered
        saved = self._epochs_left(trainer) * self.waited
        if self.share <= _SHARE or self.waited < _SECONDS or saved < building:
            return False
        folder, nbytes = data.cache_estimate()
        free = free_bytes(folder)
        waits = f"training waits for data {100 * self.share:.0f} % of the time"
        if nbytes > _ROOM * free:
            self._is_logged = True
            log.info(
                "%s; a cache of decoded images would need about %s in %s, where %s are free: to build it, use "
                "--data.create_dataset true with --data.cache_dir FOLDER on another disk, or --data.cache_size N",
                waits,
                size_in_words(nbytes),
                folder,
                size_in_words(free),
            )
            return False
        log.info(
            "%s; building a cache of decoded images, about %s in %s, for the next epochs (to train without it: "
            "--data.create_dataset false)",
            waits,
            size_in_words(nbytes),
            folder,
        )
        return True


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder is on, or will be."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free
