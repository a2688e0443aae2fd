"""Makes the data loaders of a run from its splits, pipelines and caches."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from imgcls.data.config import KEY
from imgcls.data.feature_cache.features import (
    CACHE_OFF,
    FeatureBatches,
    FeatureLoader,
    FeaturePass,
    VersionSampler,
    versions_to_cache,
)
from imgcls.data.loading.batches import OnError, SplitBatches, example
from imgcls.data.loading.loaders import BatchLoader, TrainLoader, loader_arguments
from imgcls.data.loading.samplers import BalancedSampler, KeyedSampler, RepeatingSampler
from imgcls.data.loading.stream_batches import STREAM_LIMITS, StreamBatches, StreamLoader
from imgcls.data.pixel_cache.build import estimated_bytes
from imgcls.data.pixel_cache.cached_split import CachedSplit, use_cache
from imgcls.data.pixel_cache.cached_transforms import CacheSteps, eval_steps, train_steps
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.needed_size import needed_side
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError
from imgcls.runtime.cache_folder import cache_folder
from imgcls.runtime.seeding import run_seed
from imgcls.types import Batch

if TYPE_CHECKING:
    from imgcls.data.datamodule import ImageDataModule

log = logging.getLogger(__name__)


class LoaderFactory:
    """Makes the data loaders of a datamodule; adds to the cached features, by split."""

    def __init__(self, datamodule: "ImageDataModule", features: dict[str, FeatureBatches]) -> None:
        self.settings = datamodule
        self.splitter = datamodule.splitter
        self.pipelines = datamodule.pipelines
        self.trainer = datamodule.trainer
        self.features = features

    def train(self) -> DataLoader[Batch]:
        """Return shuffled batches of the training split."""
        split = self.splitter.split("train")
        if isinstance(split.data, StreamImageDataset):
            return self._stream(split, split.data)
        data = self._with_features("train", self._batches("train", split))
        sampler = self._sampler(data, shuffle=True)
        size = self.settings.batch_size
        drops_last = len(sampler) % size == 1 and len(sampler) > size
        if drops_last:  # BatchNorm cannot train on a single value per channel
            which = "one image is skipped" if self._overfits else "one randomly chosen image is skipped each epoch"
            log.info("The last batch would contain a single image; %s", which)
        kind = FeatureLoader if isinstance(data, FeatureBatches) else TrainLoader
        loader = kind(**self._arguments(data, sampler), drop_last=drops_last)
        loader.trainer = self.trainer
        return loader

    def prediction(self, predicted: int) -> BatchLoader:
        """Return the batches of the images to predict, without the first ``predicted`` images."""
        loader = self.evaluation("predict", persistent_workers=False)
        if isinstance(loader.sampler, KeyedSampler):
            loader.sampler.skip = predicted
        return loader

    def evaluation(self, name: str, persistent_workers: bool = True) -> BatchLoader:
        """Return the batches of a split in order; its workers may end with the batches."""
        split = self.splitter.split(name)
        if self.trainer and len(split) < self.trainer.world_size:  # a process without a batch would not synchronise
            raise ConfigError(
                f"{name}: {self.trainer.world_size} processes need an image each, got {len(split)} images; use "
                "trainer.devices: 1"
            )
        data = self._with_features(name, self._batches(name, split))
        arguments = self._arguments(data, self._sampler(data, shuffle=False))
        arguments["persistent_workers"] &= persistent_workers
        return BatchLoader(**arguments)

    def _stream(self, split: Split, stream: StreamImageDataset) -> DataLoader[Batch]:
        log.info("%s", STREAM_LIMITS)
        if versions_to_cache(self.trainer, "train"):
            log.info("train is a stream: %s", CACHE_OFF)
        settings = self.settings
        given = {
            "trainer.overfit_batches": self._overfits,
            f"{KEY}.create_dataset": bool(settings.cached_splits),
            f"{KEY}.balanced_sampling": settings.balanced_sampling,
        }
        if key := next((key for key, is_given in given.items() if is_given), None):
            raise ConfigError(f"{key} cannot be used with a stream, whose images are not known before they are read")
        pipeline = self.pipelines.make("train", example(split))
        skip = self.splitter.bad_images.policy == "skip"
        names, size, pins = self.splitter.class_names, settings.batch_size, self._pins_memory
        data = StreamBatches(stream, names, pipeline, size, run_seed(), *self._rank, skip, pins)
        arguments = self._arguments(data, None, min(settings.num_workers, data.most_workers))
        # workers are started again in each epoch, since each epoch has a new stream
        loader = StreamLoader(**arguments | {"batch_size": None, "persistent_workers": False})
        loader.trainer = self.trainer
        return loader

    def _batches(self, name: str, split: Split) -> SplitBatches:
        image = example(split)
        pipeline = self.pipelines.make("train" if name == "train" else "eval", image)
        scaled = name == "train" or self.settings.decode == "scaled"
        min_side = needed_side(pipeline) if scaled else None
        if name == "predict":  # read once, so that a cache would not help
            return SplitBatches(split, pipeline, "keep", pinned=self._pins_memory, shape=image.shape, min_side=min_side)
        on_error: OnError = "skip" if self.splitter.bad_images.policy == "skip" else "raise"
        if name in self.settings.cached_splits and getattr(self.trainer, "fast_dev_run", False):
            log.info("cache: %s: not used, since trainer.fast_dev_run needs few images", name)
        elif name in self.settings.cached_splits:
            steps = self._cache_steps(name, pipeline)
            return SplitBatches(self.cached(name, steps), steps.each_time, on_error, pinned=self._pins_memory)
        return SplitBatches(split, pipeline, on_error, name == "train", self._pins_memory, min_side=min_side)

    def cached(self, name: str, steps: CacheSteps | None = None) -> CachedSplit:
        """Return a split whose images are read from the cache, after decoding the missing ones.

        Raises:
            ConfigError: If the folder cannot be used, or the disk is too small.
            FullDiskError: If the disk is full.
        """
        split, settings = self.splitter.split(name), self.settings
        steps = steps or self._cache_steps(name)
        folder = cache_folder(settings.cache_dir)
        cached = use_cache(name, split, steps, folder, settings.num_workers, settings.timeout)
        self._add_bad_images(name, cached.faults, len(cached))
        return cached

    def cache_bytes(self, name: str) -> float:
        """Estimate the size of a split in the cache, from a few of its images."""
        return estimated_bytes(self.splitter.split(name), self._cache_steps(name))

    def _cache_steps(self, name: str, pipeline: Pipeline | None = None) -> CacheSteps:
        stage = "train" if name == "train" else "eval"
        pipeline = pipeline or self.pipelines.make(stage, example(self.splitter.split(name)))
        if name == "train":
            return train_steps(pipeline, self.settings.cache_size)
        return eval_steps(pipeline, self.settings.decode == "scaled")

    def _with_features(self, name: str, data: SplitBatches) -> SplitBatches | FeatureBatches:
        """Replace images by cached features if the model's first layers stay frozen in this fit."""
        versions = versions_to_cache(self.trainer, name)
        if self.trainer is None or not versions:
            return data
        if name in self.features:  # the loader was requested before
            return self.features[name]
        sampler = VersionSampler(data, False, run_seed())
        features_of = FeaturePass(data, sampler, BatchLoader(**self._arguments(data, sampler)), name)
        found = features_of.run(self.trainer, versions, cache_folder(self.settings.cache_dir) / "features")
        self._add_bad_images(name, features_of.skipped, len(data))
        if found is None:
            return data
        self.features[name] = found
        return found

    def _add_bad_images(self, name: str, faults: dict[str, str], total: int) -> None:
        source = self.splitter.source(name)
        self.splitter.bad_images.add({source: faults}, {source: total})

    def _sampler(self, data: SplitBatches | FeatureBatches, shuffle: bool) -> KeyedSampler:
        world_size, rank = self._rank
        if shuffle and self.settings.balanced_sampling:
            if self._overfits:
                raise ConfigError(f"{KEY}.balanced_sampling: true cannot be used with trainer.overfit_batches")
            return BalancedSampler(data, data.split.label_array, run_seed(), num_replicas=world_size, rank=rank)
        kind = RepeatingSampler if self._overfits else KeyedSampler
        return kind(data, shuffle, run_seed(), num_replicas=world_size, rank=rank)

    @property
    def _rank(self) -> tuple[int, int]:
        """The number of processes, and the rank of this one."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @property
    def _pins_memory(self) -> bool:
        if self.trainer is None:
            return torch.cuda.is_available()
        return self.trainer.strategy.root_device.type == "cuda"

    @property
    def _overfits(self) -> bool:
        return bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _arguments(
        self, data: Dataset[Batch], sampler: Sampler[Any] | None, workers: int | None = None
    ) -> dict[str, Any]:
        if isinstance(data, FeatureBatches):  # a worker would only copy them
            workers = 0
        workers = self.settings.num_workers if workers is None else workers
        settings = self.settings
        return loader_arguments(data, sampler, settings.batch_size, workers, settings.timeout, self._pins_memory)
