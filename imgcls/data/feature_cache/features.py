"""Features in place of images: computed once, where the first layers of the model stay as they are during a fit."""

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
from imgcls.data.loading.samplers import BatchLoader, Key, KeyedSampler, TrainLoader
from imgcls.data.splitting.split import Split
from imgcls.errors import size_in_words
from imgcls.runtime.progress import tracked
from imgcls.runtime.seeding import mix
from imgcls.types import Batch, PartlyFrozenModel

log = logging.getLogger(__name__)

ANEW = "features are computed anew in each epoch"


class FeatureBatches(Dataset[Batch]):
    """Whole batches of features that were computed before.

    Args:
        split: The samples.
        store: Their features.
        size: Height and width in pixels of the images that they were made of.
    """

    def __init__(self, split: Split, store: FeatureStore, size: tuple[int, int]) -> None:
        self.split = split
        self.store = store
        self.size = size
        self.view = 0

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.split)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of the given ``(place, seed)`` keys, in the present view; bad images are left out."""
        there = self.store.there[self.view]
        places = [place for place, _ in keys if there[place]]
        return Batch(
            features=self.store.take(self.view, places),
            size=self.size,
            label=labels_at(self.split, places),
            path=[self.split.path(place) for place in places],
        )

    def show_epoch(self, epoch: int) -> None:
        """Give the view of an epoch: the views take turns."""
        self.view = epoch % len(self.store.there)


class FeatureLoader(TrainLoader):
    """A training loader that gives the view of the training loop's epoch."""

    dataset: FeatureBatches

    def __iter__(self) -> Any:
        """Iterate over the batches of the trainer's current epoch that are still to come."""
        if self.trainer is not None and self.trainer.training:
            self.dataset.show_epoch(self.trainer.current_epoch)
        yield from super().__iter__()


class ViewSampler(KeyedSampler):
    """Yields every sample in order, with the seeds that it has in the epoch of the view's number."""

    def _sample_seed(self, place: int, draw: int) -> int:
        return mix(self.seed, self.epoch, place)


def wanted_views(trainer: pl.Trainer | None, split: str) -> int:
    """Return how many views of a split are to be computed once; 0 for none, and a line where the run forbids it.

    Args:
        trainer: The trainer, None outside of a run.
        split: ``train`` or ``validation``.
    """
    model = getattr(trainer, "lightning_module", None)
    if trainer is None or not isinstance(model, PartlyFrozenModel):
        return 0
    if trainer.state.fn != TrainerFn.FITTING or not model.frozen_views:
        return 0
    if reason := _reason_against(trainer, split):
        log.info("%s: %s", reason, ANEW)
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
    share = getattr(trainer, key)
    return f"trainer.{key}: {share}" if isinstance(share, int) or share < 1 else ""


class Pass:
    """One pass of a split through the layers that stay as they are, for each view.

    Args:
        data: The images.
        sampler: Gives the views.
        loader: Reads them, with that sampler.
        name: The split's name, for messages.
    """

    def __init__(self, data: SplitBatches, sampler: ViewSampler, loader: BatchLoader, name: str) -> None:
        self.data = data
        self.sampler = sampler
        self.loader = loader
        self.name = name
        self.skipped: dict[str, str] = {}

    def run(self, trainer: pl.Trainer, views: int, folder: Path) -> FeatureBatches | None:
        """Compute the features; None where there is no place for it in the model, or no room, which is said.

        Args:
            trainer: Its model computes them.
            views: How many views of each image are made.
            folder: Where the features lie if they do not fit into memory.
        """
        model, size = trainer.lightning_module, self._size()
        if size is None or not isinstance(model, PartlyFrozenModel):
            return None
        until = model.frozen_until(size)
        if until is None:
            return None
        store: FeatureStore | None = None
        for view, places, batch in self._batches(views):
            features = model.compute_features(batch["image"])
            if store is None:
                store = _room(views, len(self.data), features, folder)
                if store is None:
                    return None
            store.put(view, places, features)
        if store is None:  # no image can be read
            return None
        self._tell(store, until, trainer.max_epochs)
        return FeatureBatches(self.data.split, store, size)

    def _size(self) -> tuple[int, int] | None:
        """Height and width of the images; None where none can be read."""
        for key in self.sampler:
            image = self.data[key]["image"]
            if len(image):
                return image.shape[2], image.shape[3]
        return None

    def _batches(self, views: int) -> Iterator[tuple[int, list[int], Batch]]:
        """Iterate over view, places of the images and batch; remember what could not be read."""
        count = views * len(self.loader)
        for number, batch in enumerate(tracked(self._of_all(views), count, f"computing features of {self.name}")):
            view, step = divmod(number, len(self.loader))
            skipped = batch.get("skipped", {})
            self.skipped |= skipped
            first = step * (self.loader.batch_size or 1)
            places = range(first, min(first + (self.loader.batch_size or 1), len(self.data)))
            kept = [place for place in places if self.data.split.path(place) not in skipped]
            if kept:
                yield view, kept, batch

    def _of_all(self, views: int) -> Iterator[Batch]:
        for view in range(views):
            self.sampler.set_epoch(view)
            yield from self.loader

    def _tell(self, store: FeatureStore, until: str, epochs: int | None) -> None:
        where = "on disk" if store.is_on_disk else "in memory"
        log.info("features of %s: of %s, %s %s", self.name, until, size_in_words(store.nbytes), where)
        if self.name == "train":
            many = f"{epochs} epoch{'s' if epochs != 1 else ''}" if epochs and epochs > 0 else "all epochs"
            log.info("features of %s computed once stand for %s", _views(len(store.there)), many)


def _room(views: int, samples: int, like: Tensor, folder: Path) -> FeatureStore | None:
    try:
        return FeatureStore(views, samples, like, folder)
    except OSError as error:
        size = size_in_words(views * samples * like[0].numel() * like.element_size())
        log.info(
            "features: %s for %s of %s images do not fit (%s): %s", size, _views(views), f"{samples:,}", error, ANEW
        )
        return None


def _views(count: int) -> str:
    return f"{count} view{'s' if count > 1 else ''}"
