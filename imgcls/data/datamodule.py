"""The data of a run: which samples belong to which split, and the loaders that feed them."""

import logging
import os
from dataclasses import replace
from typing import Any, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from imgcls.config.class_path import Spec
from imgcls.data.config import (
    KEY,
    Augmentations,
    DatasetClasses,
    as_augmentations,
    as_datasets,
    check_batch_size,
    check_class_names,
    check_regex,
    require,
)
from imgcls.data.feature_cache.features import ANEW, FeatureBatches, FeatureLoader, Pass, ViewSampler, wanted_views
from imgcls.data.loading.batches import OnError, SplitBatches, as_it_is, example, start_worker
from imgcls.data.loading.samplers import (
    PREFETCHED,
    BalancedSampler,
    BatchLoader,
    KeyedSampler,
    RepeatingSampler,
    TrainLoader,
)
from imgcls.data.loading.stream_batches import PROMISES, Share, StreamBatches, StreamLoader
from imgcls.data.loading.workers import FORK, worker_error
from imgcls.data.pixel_cache.cached_split import use_cache
from imgcls.data.pixel_cache.fixed_steps import eval_steps, train_steps
from imgcls.data.scan.bad_images import BadImages, Policy
from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.config import OnLeak, Rules
from imgcls.data.splitting.split import Split
from imgcls.data.splitting.splitter import Splitter
from imgcls.data.splitting.train_val_split import Fold
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.data.transforms.train_and_eval import Pipelines
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError
from imgcls.runtime.cache_folder import cache_folder
from imgcls.runtime.cores import available_cores
from imgcls.runtime.seeding import run_seed
from imgcls.runtime.serialize import plain
from imgcls.types import Batch, ClassifyingModel, PreprocessedModel, Preprocessing

log = logging.getLogger(__name__)

MOST_WORKERS = 16  # that are started unless the user asks for more

_SPLITS = {"train": "train", "sanity_check": "validation", "validate": "validation", "test": "test"}  # of stages


class ImageDataModule(pl.LightningDataModule):
    """Datasets, splits, augmentation and loaders of a run.

    Args:
        dataset_classes: The dataset of each split; only ``train`` is needed to fit.
        augmentations: What happens to an image between file and batch.
        batch_size: Images in a batch, in each process.
        num_workers: Processes that read images; null takes all but one of the cores that this process may use, or of
            its share of them where a run has several on this machine, and 16 at most.
        create_dataset: Decode and resize once into a cache on disk that every epoch, run and trial reuses.
        cache_dir: The folder of that cache; null is $IMGCLS_CACHE, else ~/.cache/imgcls, where what is known of files
            (headers, content hashes, indexes of shards) lies in any case.
        cache_size: Shorter side in pixels to which the cache shrinks training images, never enlarging; null: the
            smallest that a RandomResizedCrop at the head of ``augmentations.train`` can use, else no shrinking.
        validation_split: Share of ``train`` held out, between 0 and 1, stratified, where
            ``dataset_classes.validation`` is null; where groups stay whole, about as much.
        split_seed: Seed of that split, apart from the run's seed, so that runs with other seeds see the same split.
        fold: ``k/n``: hold out the k-th of n parts, for cross-validation, in place of ``validation_split``.
        group_column: Column of the samples whose values stay on one side of the split: a patient, video or scene; null:
            the column ``group`` where there is one.
        group_regex: Regular expression that finds the group in the path below the dataset's root, in place of a column:
            its first bracket, or all that it matches.
        content_hash: By what images are told apart: ``full`` reads all bytes of each file, once; ``sampled`` its size
            and the first and last 64 kB: images that differ only in between pass for copies; ``none`` reads nothing,
            finds no copies and no leaks, and makes and keeps the split by path.
        on_leak: What happens when the same image, or group, is in two splits: ``error`` or ``warn``.
        on_bad_image: What happens to images that cannot be read: ``error`` ends the run, with a list before the first
            step, or at damage that only decoding shows, when it is read; ``skip`` leaves them out, listed in data.json.
        max_bad_fraction: Share of a dataset's images, 0 to 1, that ``skip`` may leave out.
        timeout: Seconds that a batch, or an image of the cache, may take to read, before the run ends and names the
            file; 0 waits for ever, and so does a process without workers.
        class_names: The classes in the order of the model's outputs; null takes them from ``train`` in natural order.
        balanced_sampling: Draw each class equally often in an epoch, with replacement, however many images it has.
        train_on_validation: Train on train + validation, for a last fit whose epochs are known; nothing is left to
            validate, and ``trainer.limit_val_batches`` must be 0.
    """

    def __init__(
        self,
        dataset_classes: DatasetClasses = DatasetClasses(),  # noqa: B008 - never written to
        augmentations: Augmentations = Augmentations(),  # noqa: B008 - never written to
        batch_size: int = 32,
        num_workers: int | None = None,
        create_dataset: bool = False,
        cache_dir: str | None = None,
        cache_size: int | None = None,
        validation_split: float = 0.2,
        split_seed: int = 0,
        fold: str | None = None,
        group_column: str | None = None,
        group_regex: str | None = None,
        content_hash: HashKind = "full",
        on_leak: OnLeak = "error",
        on_bad_image: Policy = "error",
        max_bad_fraction: float = 0.01,
        timeout: float = 300.0,
        class_names: list[str] | None = None,
        balanced_sampling: bool = False,
        train_on_validation: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        require(num_workers is None or num_workers >= 0, "num_workers", num_workers, "be at least 0, or null")
        hint = "; to hold nothing out: train_on_validation: true, with trainer.limit_val_batches: 0"
        require(0 < validation_split < 1, "validation_split", validation_split, f"lie between 0 and 1{hint}")
        require(0 <= split_seed < 2**32, "split_seed", split_seed, "lie between 0 and 4294967295")
        require(0 <= max_bad_fraction <= 1, "max_bad_fraction", max_bad_fraction, "lie between 0 and 1")
        require(timeout >= 0, "timeout", timeout, "be at least 0 seconds")
        check_class_names(class_names or [])
        _check_cache(create_dataset, cache_size, content_hash)
        self.save_hyperparameters(logger=False)
        self.pipelines = Pipelines(as_augmentations(augmentations), self._preprocessing)
        self.batch_size = batch_size
        self.balanced_sampling = balanced_sampling
        self._num_workers = num_workers
        self.timeout = timeout
        self.create_dataset = create_dataset
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        check_regex(group_regex)
        part = None if fold is None else Fold.read(fold)
        groups = group_column, group_regex
        rules = Rules(validation_split, split_seed, part, *groups, on_leak, train_on_validation, content_hash)
        bad_images = BadImages(on_bad_image, max_bad_fraction)
        self.splitter = Splitter(as_datasets(dataset_classes), rules, bad_images, class_names or [])
        self.normalization = self.pipelines.normalization()
        self._features: dict[str, FeatureBatches] = {}

    # -- the hooks of Lightning

    def setup(self, stage: str) -> None:
        """Find the class list, which the model is built from, and look at the images' headers."""
        model = getattr(self.trainer, "lightning_module", None)
        if not self.class_names and isinstance(model, ClassifyingModel):
            self.class_names = list(model.class_names)
        self.splitter.begin(stage)
        self._share_hashes()
        if self.balanced_sampling and self.multilabel and stage == "fit":
            raise ConfigError(
                f"{KEY}.balanced_sampling: true, but an image may have several labels, and none is its class; "
                "model.init_args.loss_config.class_weights: auto weights them"
            )
        self._features.clear()  # of a fit that was broken off

    def _share_hashes(self) -> None:
        """Let the first process hash the samples that are no files, and give the hashes to the others."""
        if self.trainer is None or self.trainer.world_size == 1:
            return
        scan, kind = self.splitter.scan, self.splitter.kind
        for data in self.splitter.uncached_datasets():
            rows = range(len(data.samples)) if self.trainer.is_global_zero else range(0)
            hashes = self.trainer.strategy.broadcast(scan.hashes(data, rows, kind))
            scan.take(data, kind, np.array(hashes, dtype=object))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training split."""
        self.splitter.refuse_leaks()
        split = self.split("train")
        if isinstance(split.data, StreamImageDataset):
            return self._stream_loader(split.data, self.pipelines.make("train", example(split)))
        data = self._computed("train", self._batches("train", split))
        sampler = self._sampler(data, shuffle=True)
        alone = len(sampler) % self.batch_size == 1 and len(sampler) > self.batch_size
        if alone:  # BatchNorm cannot train on a single value a channel
            which = "the same" if self._overfits else "another"
            log.info("the last batch would hold a single image: one image, %s in each epoch, is left out", which)
        kind = FeatureLoader if isinstance(data, FeatureBatches) else TrainLoader
        loader = kind(**self._loader_arguments(data, sampler), drop_last=alone)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation split, in order."""
        if self.splitter.rules.train_on_validation and self.splitter.stage == "fit":
            raise ConfigError(
                f"{KEY}.train_on_validation: true leaves nothing to validate: trainer.limit_val_batches: 0"
            )
        return self._eval_loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split, in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of the images to predict, in order; one that cannot be read comes with its reason."""
        return self._eval_loader("predict")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Report the images that were left out of a batch; a loader of the user's may give batches of another form."""
        if isinstance(batch, dict) and (skipped := batch.pop("skipped", None)):
            split = _SPLITS[self.trainer.state.stage.value]  # type: ignore[union-attr]
            data = self.split(split).data
            total = len(self.split(split))
            if isinstance(data, StreamImageDataset):  # which shows other images in each epoch
                total = data.length * (self.trainer.current_epoch + 1)  # type: ignore[union-attr]
            source = self.splitter.source(split)
            self.bad_images.add({source: skipped}, {source: total})
        return batch

    def teardown(self, stage: str) -> None:
        """Give the room of features back: what follows a fit reads images."""
        for features in self._features.values():
            features.store.forget()
        self._features.clear()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the tensors; Lightning's own way visits each path, half a millisecond per batch."""
        if not isinstance(batch, dict):  # of a loader of the user's
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        waits = device.type in {"cpu", "mps"}  # where Lightning, too, lets the copy be complete
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                batch[key] = value.to(device, non_blocking=not waits)  # type: ignore[literal-required]
        return batch

    def on_exception(self, exception: BaseException) -> None:
        """Name the file where a worker was killed while reading, or waits for ever.

        Raises:
            RunError: In place of the loader's own error.
        """
        if error := worker_error(exception):
            raise error from exception

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: classes, evaluation steps, content hash and class of each sample."""
        steps = plain(self.pipelines.eval_specs())
        return {"class_names": list(self.class_names), "eval": steps, **self.splitter.record()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the split of the checkpoint, so that no image changes sides."""
        self.splitter.load_record(state_dict)

    # -- what a run writes down

    def predict_on(self, data: ImageDataset) -> None:
        """Set the images to predict."""
        self.splitter.replace("predict", data)

    def evaluate_by(self, steps: list[Spec]) -> None:
        """Set the evaluation steps, in place of those that were configured."""
        self.pipelines = Pipelines(replace(self.pipelines.lists, eval=steps), self._preprocessing)
        self.normalization = self.pipelines.normalization()

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the outputs; empty until they are known."""
        return self.splitter.class_names

    @class_names.setter
    def class_names(self, names: list[str]) -> None:
        self.splitter.class_names = names

    def class_counts(self) -> list[int]:
        """Number of training images of each class.

        Raises:
            ConfigError: If they are a stream, which nobody has counted.
        """
        split = self.split("train")
        if isinstance(split.data, StreamImageDataset):
            raise ConfigError("the classes of a stream cannot be counted; give loss_config.class_weights as a list")
        return split.class_counts(len(self.class_names))

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels; known after ``setup``."""
        return self.splitter.multilabel

    @property
    def datasets(self) -> dict[str, ImageDataset | None]:
        """The dataset of each split."""
        return self.splitter.datasets

    @property
    def bad_images(self) -> BadImages:
        """The images that cannot be read."""
        return self.splitter.bad_images

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning has a plain attribute
        """A short name of the training data."""
        text = str(self.datasets["train"])
        return os.path.abspath(text) if os.path.exists(text) else text

    @property
    def has_test(self) -> bool:
        """Whether test data are given."""
        return self.datasets["test"] is not None

    @property
    def num_workers(self) -> int:
        """Number of processes that read images."""
        if self._num_workers is not None:
            return self._num_workers
        beside = self.trainer.num_devices if self.trainer else 1
        return min(max(available_cores() // beside - 1, 0), MOST_WORKERS)

    @property
    def streams(self) -> bool:
        """Whether train is a stream, whose images are not known before they are read."""
        return isinstance(self.datasets["train"], StreamImageDataset)

    def split(self, name: str) -> Split:
        """Return the split ``train``, ``validation``, ``test`` or ``predict``."""
        return self.splitter.split(name)

    # -- pipelines and loaders

    def _preprocessing(self) -> Preprocessing:
        model = getattr(self.trainer, "lightning_module", None)
        if not isinstance(model, PreprocessedModel):
            raise ConfigError(
                f"{KEY}.augmentations: the model states no preprocessing; give both lists, train and eval"
            )
        return model.preprocessing

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        if self.splitter.stage in {"validate", "test"}:
            self.splitter.refuse_trained(name)
        split = self.split(name)
        if self.trainer and len(split) < self.trainer.world_size:  # who has no batch does not wait for the others
            raise ConfigError(
                f"{name}: {len(split)} images for {self.trainer.world_size} processes; trainer.devices: 1 takes them"
            )
        data = self._computed(name, self._batches(name, split))
        return BatchLoader(**self._loader_arguments(data, self._sampler(data, shuffle=False)))

    def _stream_loader(self, stream: StreamImageDataset, pipeline: Pipeline) -> DataLoader[Batch]:
        log.info("%s", PROMISES)
        if wanted_views(self.trainer, "train"):
            log.info("train is a stream: %s", ANEW)
        wanted = {
            "trainer.overfit_batches": self._overfits,
            f"{KEY}.create_dataset": self.create_dataset,
            f"{KEY}.balanced_sampling": self.balanced_sampling,
        }
        if key := next((key for key, asked in wanted.items() if asked), None):
            raise ConfigError(f"{key}: needs images that are known before they are read; train is a stream")
        world, rank = self._place
        share = Share(rank, world, run_seed())
        skip = self.bad_images.policy == "skip"
        data = StreamBatches(stream, self.class_names, pipeline, self.batch_size, share, skip, self._pins_memory)
        workers = min(self.num_workers, data.most_workers)
        arguments = self._loader_arguments(data, None, workers)
        loader = StreamLoader(**arguments | {"batch_size": None, "persistent_workers": False})  # epochs begin anew
        loader.trainer = self.trainer
        return loader

    def _batches(self, name: str, split: Split) -> SplitBatches:
        image = example(split)
        pipeline = self.pipelines.make("train" if name == "train" else "eval", image)
        if name == "predict":  # read once, so a cache would gain nothing
            return SplitBatches(split, pipeline, "keep", pinned=self._pins_memory, shape=image.shape)
        on_error: OnError = "skip" if self.bad_images.policy == "skip" else "raise"
        if self.create_dataset and getattr(self.trainer, "fast_dev_run", False):
            log.info("cache: %s: left alone, trainer.fast_dev_run decodes the few images that it takes", name)
        elif self.create_dataset:
            steps = train_steps(pipeline, self.cache_size) if name == "train" else eval_steps(pipeline)
            kept = use_cache(name, split, steps, cache_folder(self.cache_dir), self.num_workers, self.timeout)
            source = self.splitter.source(name)
            self.bad_images.add({source: kept.faults}, {source: len(kept)})
            return SplitBatches(kept, steps.each_time, on_error, pinned=self._pins_memory)
        return SplitBatches(split, pipeline, on_error, name == "train", self._pins_memory)

    def _computed(self, name: str, data: SplitBatches) -> SplitBatches | FeatureBatches:
        """Put features in place of images, where the model's first layers stay as they are in this fit."""
        views = wanted_views(self.trainer, name)
        if self.trainer is None or not views:
            return data
        if name in self._features:  # the loader is asked for again
            return self._features[name]
        sampler = ViewSampler(data, False, run_seed())
        features_of = Pass(data, sampler, BatchLoader(**self._loader_arguments(data, sampler)), name)
        found = features_of.run(self.trainer, views, cache_folder(self.cache_dir) / "features")
        source = self.splitter.source(name)
        self.bad_images.add({source: features_of.skipped}, {source: len(data)})
        if found is None:
            return data
        self._features[name] = found
        return found

    def _sampler(self, data: SplitBatches | FeatureBatches, shuffle: bool) -> KeyedSampler:
        world, rank = self._place
        if shuffle and self.balanced_sampling:
            if self._overfits:
                raise ConfigError(f"{KEY}.balanced_sampling: true does not go with trainer.overfit_batches")
            return BalancedSampler(data, data.split.label_array, run_seed(), num_replicas=world, rank=rank)
        kind = RepeatingSampler if self._overfits else KeyedSampler
        return kind(data, shuffle, run_seed(), num_replicas=world, rank=rank)

    @property
    def _place(self) -> tuple[int, int]:
        """How many processes the run has, and the number of this one."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @property
    def _pins_memory(self) -> bool:
        if self.trainer is None:
            return torch.cuda.is_available()
        return self.trainer.strategy.root_device.type == "cuda"

    @property
    def _overfits(self) -> bool:
        return bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _loader_arguments(
        self, data: Dataset[Batch], sampler: Sampler[Any] | None, workers: int | None = None
    ) -> dict[str, Any]:
        if isinstance(data, FeatureBatches):  # a worker would only copy them
            workers = 0
        workers = self.num_workers if workers is None else workers
        return {
            "dataset": data,
            "sampler": sampler,
            "batch_size": self.batch_size,
            "num_workers": workers,
            "multiprocessing_context": FORK if workers > 0 else None,
            "persistent_workers": workers > 0,
            "prefetch_factor": PREFETCHED if workers > 0 else None,
            "pin_memory": self._pins_memory,
            "collate_fn": as_it_is,
            "worker_init_fn": start_worker,
            "timeout": self.timeout if workers else 0,
            "generator": torch.Generator(),  # making an iterator must not draw from the global generator
        }


def _check_cache(create_dataset: bool, cache_size: int | None, content_hash: HashKind) -> None:
    require(cache_size is None or cache_size >= 1, "cache_size", cache_size, "be at least 1, or null")
    require(content_hash in get_args(HashKind), "content_hash", content_hash, "be full, sampled or none")
    if create_dataset and content_hash == "none":
        raise ConfigError(
            f"{KEY}.create_dataset: true names images by their contents, and content_hash: none knows none; give "
            "content_hash: full, or sampled"
        )
    if cache_size is not None and not create_dataset:
        log.info("%s.cache_size: %s has no effect without create_dataset: true", KEY, cache_size)
