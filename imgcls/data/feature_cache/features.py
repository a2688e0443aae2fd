"""Features instead of images: computed once for the layers that stay frozen during a fit."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import Dataset

from imgcls.data.feature_cache.store import FeatureStore
from imgcls.data.loading.batches import SplitBatches, labels_at
from imgcls.data.loading.loaders import BatchLoader, TrainLoader
from imgcls.data.loading.samplers import Key, KeyedSampler
from imgcls.data.splitting.split import Split
from imgcls.errors import size_in_words
from imgcls.runtime.progress import tracked
from imgcls.runtime.seeding import derive_seed
from imgcls.types import Batch, PartlyFrozenModel

log = logging.getLogger(__name__)

CACHE_OFF = "feature cache off: features are recomputed every epoch"


class FeatureBatches(Dataset[Batch]):
    """Whole batches of cached features.

    Args:
        split: The samples.
        store: Their features.
        size: Height and width in pixels of the images.
    """

    def __init__(self, split: Split, store: FeatureStore, size: tuple[int, int]) -> None:
        self.split = split
        self.store = store
        self.size = size
        self.version = 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of the given ``(index, seed)`` keys, in the current version, without unreadable images."""
        present = self.store.present[self.version]
        indices = [index for index, _ in keys if present[index]]
        return Batch(
            features=self.store.get(self.version, indices),
            size=self.size,
            label=labels_at(self.split, indices),
            path=[self.split.path(index) for index in indices],
        )

    def set_epoch(self, epoch: int) -> None:
        """Select the augmented version of an epoch; epochs cycle through the versions."""
        self.version = epoch % len(self.store.present)


class FeatureLoader(TrainLoader):
    """A training loader of the augmented version of the training loop's epoch."""

    dataset: FeatureBatches

    def __iter__(self) -> Any:
        if self.trainer is not None and self.trainer.training:
            self.dataset.set_epoch(self.trainer.current_epoch)
        yield from super().__iter__()


class VersionSampler(KeyedSampler):
    """Yields every sample in order, with the seeds of the epoch that has the version's number."""

    def _sample_seed(self, index: int, draw: int) -> int:
        return derive_seed(self.seed, self.epoch, index)


def versions_to_cache(trainer: pl.Trainer | None, split: str) -> int:
    """Return how many augmented versions of ``train`` or ``validation`` to cache; 0, logged, if the run prevents it."""
    model = getattr(trainer, "lightning_module", None)
    if trainer is None or not isinstance(model, PartlyFrozenModel):
        return 0
    if trainer.state.fn != TrainerFn.FITTING or not model.frozen_views:
        return 0
    if reason := _reason_against(trainer, split):
        log.info("%s: %s", reason, CACHE_OFF)
        return 0
    epochs = trainer.max_epochs or -1
    return 1 if split != "train" else min(model.frozen_views, epochs if epochs > 0 else model.frozen_views)


def _reason_against(trainer: pl.Trainer, split: str) -> str:
    if trainer.world_size > 1:
        return f"{trainer.world_size} processes"
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return "trainer.fast_dev_run"
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        return f"trainer.overfit_batches: {trainer.overfit_batches}"  # type: ignore[attr-defined]
    key = "limit_train_batches" if split == "train" else "limit_val_batches"
    limit = getattr(trainer, key)
    return f"trainer.{key}: {limit}" if isinstance(limit, int) or limit < 1 else ""


class FeaturePass:
    """A pass of a split through the frozen layers, for each augmented version.

    Args:
        data: The images.
        sampler: Selects the version.
        loader: Loads the images, with that sampler.
        name: The split's name, for messages.
    """

    def __init__(self, data: SplitBatches, sampler: VersionSampler, loader: BatchLoader, name: str) -> None:
        self.data = data
        self.sampler = sampler
        self.loader = loader
        self.name = name
        self.skipped: dict[str, str] = {}

    def run(self, trainer: pl.Trainer, versions: int, folder: Path) -> FeatureBatches | None:
        """Compute the features; None, logged, if the model has no point to split it at, or they do not fit.

        Args:
            trainer: Its model computes them.
            versions: Number of augmented versions per image.
            folder: For features that do not fit into memory.
        """
        model = trainer.lightning_module
        if not isinstance(model, PartlyFrozenModel):
            return None
        size, split_point, store = (0, 0), None, None
        for version, indices, batch in self._batches(versions):
            if store is None:
                size = batch["image"].shape[2], batch["image"].shape[3]
                split_point = model.frozen_until(size)
                if split_point is None:
                    return None
            features = model.compute_features(batch["image"])
            store = store or _make_store(versions, len(self.data), features, folder)
            if store is None:
                return None
            store.put(version, indices, features)
        if store is None or split_point is None:  # no image can be read
            return None
        self._log(store, split_point, trainer.max_epochs)
        return FeatureBatches(self.data.split, store, size)

    def _batches(self, versions: int) -> Iterator[tuple[int, list[int], Batch]]:
        """Yield version, indices of the images and batch; collect unreadable images."""
        count = versions * len(self.loader)
        for number, batch in enumerate(tracked(self._load(versions), count, f"computing features of {self.name}")):
            version, step = divmod(number, len(self.loader))
            skipped = batch.get("skipped", {})
            self.skipped |= skipped
            first = step * (self.loader.batch_size or 1)
            indices = range(first, min(first + (self.loader.batch_size or 1), len(self.data)))
            kept = [index for index in indices if self.data.split.path(index) not in skipped]
            if kept:
                yield version, kept, batch

    def _load(self, versions: int) -> Iterator[Batch]:
        for version in range(versions):
            self.sampler.set_epoch(version)
            yield from self.loader

    def _log(self, store: FeatureStore, split_point: str, epochs: int | None) -> None:
        where = "on disk" if store.is_on_disk else "in memory"
        reuse = ""
        if self.name == "train":
            count = f"all {epochs} epochs" if epochs and epochs > 0 else "all epochs"
            reuse = f"; {_in_words(len(store.present))} of each image reused in {count}"
        log.info(
            "Cached features of %s from %s: %s %s%s", self.name, split_point, size_in_words(store.nbytes), where, reuse
        )


def _make_store(versions: int, samples: int, like: Tensor, folder: Path) -> FeatureStore | None:
    try:
        return FeatureStore(versions, samples, like, folder)
    except OSError as error:
        size = size_in_words(versions * samples * like[0].numel() * like.element_size())
        words = _in_words(versions)
        log.info("features: %s for %s of %s images do not fit (%s): %s", size, words, f"{samples:,}", error, CACHE_OFF)
        return None


def _in_words(versions: int) -> str:
    return f"{versions} augmented version{'s' if versions > 1 else ''}"
