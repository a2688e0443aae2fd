"""The datamodule: datasets, splits, augmentation and loaders of a run."""

import logging
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from imgcls.config.class_path import Spec
from imgcls.data.config import (
    KEY,
    Augmentations,
    CreateDataset,
    DatasetClasses,
    Decode,
    as_dataset_classes,
    as_datasets,
    as_section,
    as_size,
    check_cache,
    check_class_names,
    check_loading,
    require,
)
from imgcls.data.feature_cache.features import FeatureBatches
from imgcls.data.loader_factory import LoaderFactory
from imgcls.data.loading.loaders import Batches
from imgcls.data.loading.workers import worker_error
from imgcls.data.pixel_cache.cache_keys import is_own_class
from imgcls.data.scan.bad_images import BadImages, Policy
from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.rules import OnLeak, SplitRules
from imgcls.data.splitting.split import Split
from imgcls.data.splitting.splitter import Splitter
from imgcls.data.splitting.train_val_split import Fold
from imgcls.data.transforms.presets import EvalPreset
from imgcls.data.transforms.train_and_eval import Pipelines
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.split_folders import split_folders
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError, FullDiskError
from imgcls.runtime.cache_folder import cache_folder
from imgcls.runtime.cores import available_cores
from imgcls.runtime.serialize import serialize
from imgcls.runtime.signals import interruptible
from imgcls.types import Batch, ClassifyingModel, PreprocessedModel, Preprocessing

log = logging.getLogger(__name__)

AUTO_SPLITS = ("train", "validation")  # read every epoch
MOST_WORKERS = 16  # started unless the user sets num_workers

_SPLITS = {"train": "train", "sanity_check": "validation", "validate": "validation", "test": "test"}  # of stages


class ImageDataModule(pl.LightningDataModule):
    """Datasets, splits, augmentation and loaders of a run.

    Args:
        dataset_classes: The dataset of each split; only ``train`` is needed to fit.
        augmentations: Transforms of images before they are batched.
        image_size: Size in pixels to which images are cropped or resized, one number or [height, width]; null is the
            size of the pretrained model. For the presets and lists that do not fix the size; position embeddings are
            interpolated.
        decode: How validation, test and prediction images are decoded: ``exact``, or ``scaled``: a JPEG at a half, a
            quarter or an eighth of its size, at least twice the size to which it is resized. Training crops are always
            decoded at the smallest of these sizes that loses no detail.
        batch_size: Images per batch, in each process.
        num_workers: Processes that load images; null uses all but one of the available cores, divided among the
            processes of a run on this machine, and at most 16.
        create_dataset: Decode and resize images once into a cache on disk, which every epoch, run and trial reuses.
            ``auto`` decides after the first epoch: a cache is built if training has waited for data more than a fifth
            of the time, the remaining epochs repay it, and the disk has room. Not with ``trainer.deterministic``, in a
            search, or for dataset classes of your own, which ``auto`` trains without.
        cache_dir: Folder of that cache; null is $IMGCLS_CACHE, else ~/.cache/imgcls, where the results of scans
            (headers, content hashes, indexes of shards) are cached in any case.
        cache_size: Shorter side in pixels to which the cache shrinks training images, never enlarging; null: the
            smallest that loses no detail for a RandomResizedCrop at the start of ``augmentations.train``, else no
            shrinking.
        validation_split: Share of ``train`` to hold out, between 0 and 1, stratified, if ``dataset_classes.validation``
            is null; approximate if groups are kept together.
        split_seed: Seed of that split, independent of the run's seed, so that runs with other seeds use the same split.
        fold: ``k/n``: hold out the k-th of n folds, for cross-validation, instead of ``validation_split``.
        group_column: Column of the samples whose values stay on one side of the split: a patient, video or scene; null:
            the column ``group`` if there is one.
        group_regex: Regular expression that finds the group in the path below the dataset's root, instead of a column:
            its first bracket, or the whole match.
        content_hash: How copies of an image are recognised: ``full`` hashes all bytes of each file, once; ``sampled``
            its size and the first and last 64 kB, so that images that differ only in between count as copies; ``none``
            hashes nothing, finds no copies and no leaks, and makes and restores the split by path.
        on_leak: What happens if an image or a group is in two splits: ``error`` or ``warn``.
        on_bad_image: What happens to unreadable images: ``error`` ends the run, before the first step with a list, or
            when an image is read whose damage only decoding shows; ``skip`` skips them and lists them in data.json.
        max_bad_fraction: Share of a dataset's images, 0 to 1, that ``skip`` may skip.
        timeout: Seconds that a batch, or an image of the cache, may take in a worker before the run ends and names the
            file; 0 is unlimited.
        class_names: The classes in the order of the model's outputs; null uses those of ``train`` in natural order.
        balanced_sampling: Draw each class equally often in an epoch, with replacement.
        train_on_validation: Train on train + validation, for a final fit with a known number of epochs; there is no
            validation then, and ``trainer.limit_val_batches`` must be 0.
    """

    predicted: int = 0
    """Images to predict, at the start of the list, that are left out since they are predicted already."""
    create_dataset: CreateDataset
    _decided: bool | None = None  # what ``create_dataset: auto`` has decided

    def __init__(
        self,
        dataset_classes: DatasetClasses = DatasetClasses(),  # noqa: B008 - never modified
        augmentations: Augmentations = Augmentations(),  # noqa: B008 - never modified
        batch_size: int = 32,
        num_workers: int | None = None,
        create_dataset: CreateDataset = "auto",
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
        image_size: int | list[int] | None = None,
        decode: Decode = "exact",
    ) -> None:
        super().__init__()
        check_loading(batch_size, num_workers, timeout, decode)
        hint = " (to hold out nothing: train_on_validation: true, with trainer.limit_val_batches: 0)"
        require(0 < validation_split < 1, "validation_split", validation_split, f"be between 0 and 1{hint}")
        require(0 <= split_seed < 2**32, "split_seed", split_seed, "be between 0 and 4294967295")
        require(0 <= max_bad_fraction <= 1, "max_bad_fraction", max_bad_fraction, "be between 0 and 1")
        check_class_names(class_names or [])
        check_cache(create_dataset, cache_size, content_hash)
        dataset_classes = as_dataset_classes(dataset_classes)  # recorded like this
        self.save_hyperparameters(logger=False)
        self.image_size = as_size(image_size)  # height and width; None: the model's
        lists = as_section(augmentations, Augmentations, "augmentations")
        self.pipelines = Pipelines(lists, self._preprocessing, self.image_size)
        self.normalization = self.pipelines.normalization()
        self.batch_size = batch_size
        self.balanced_sampling = balanced_sampling
        self._num_workers = num_workers
        self.timeout = timeout
        self.decode: Decode = decode
        self.create_dataset, self.cache_dir, self.cache_size = create_dataset, cache_dir, cache_size
        part, groups = None if fold is None else Fold.read(fold), (group_column, group_regex)
        rules = SplitRules(validation_split, split_seed, part, *groups, on_leak, train_on_validation, content_hash)
        bad_images = BadImages(on_bad_image, max_bad_fraction)
        self.splitter = Splitter(as_datasets(dataset_classes), rules, bad_images, class_names or [])
        self._features: dict[str, FeatureBatches] = {}

    # -- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Find the classes, from which the model is built, and scan the images' headers."""
        model = getattr(self.trainer, "lightning_module", None)
        if not self.class_names and isinstance(model, ClassifyingModel):
            self.class_names = list(model.class_names)
        self.splitter.setup(stage)
        self._share_hashes()
        if self.balanced_sampling and self.multilabel and stage == "fit":
            raise ConfigError(
                f"{KEY}.balanced_sampling: true cannot be used with multi-label data; use "
                "model.init_args.loss_config.class_weights: auto"
            )
        self._features.clear()  # of an interrupted fit

    def _share_hashes(self) -> None:
        """Hash samples that are not files in the first process only, and send the hashes to the others."""
        if self.trainer is None or self.trainer.world_size == 1:
            return
        scan, kind = self.splitter.scan, self.splitter.kind
        for data in self.splitter.uncached_datasets():
            rows = range(len(data.samples)) if self.trainer.is_global_zero else range(0)
            hashes = self.trainer.strategy.broadcast(scan.hashes(data, rows, kind))
            scan.set_hashes(data, kind, np.array(hashes, dtype=object))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of the training split."""
        self.splitter.refuse_leaks()
        if self._decided and self.create_dataset:
            self._fill_cache()
        return self._loaders().train()

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of the validation split in order."""
        if self.splitter.rules.train_on_validation and self.splitter.stage == "fit":
            raise ConfigError(
                f"{KEY}.train_on_validation: true leaves no validation data; set trainer.limit_val_batches: 0"
            )
        return self._eval_loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of the test split in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> Batches:
        """Return the batches of the images to predict in order; ``error`` has the reasons of unreadable ones."""
        return Batches(self._loaders().prediction(self.predicted))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Report the images that were skipped in a batch; a user's own loader may return other batches."""
        if isinstance(batch, dict) and (skipped := batch.pop("skipped", None)):
            split = _SPLITS[self.trainer.state.stage.value]  # type: ignore[union-attr]
            data = self.split(split).data
            total = len(self.split(split))
            if isinstance(data, StreamImageDataset):  # each epoch has other images
                total = data.length * (self.trainer.current_epoch + 1)  # type: ignore[union-attr]
            source = self.splitter.source(split)
            self.bad_images.add({source: skipped}, {source: total})
        return batch

    def teardown(self, stage: str) -> None:
        """Free cached features, which only a fit uses."""
        for features in self._features.values():
            features.store.release()
        self._features.clear()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the tensors; Lightning's default visits each path as well, which takes 0.5 ms per batch."""
        if not isinstance(batch, dict):  # from a user's own loader
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        blocks = device.type in {"cpu", "mps"}  # as in Lightning
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                batch[key] = value.to(device, non_blocking=not blocks)  # type: ignore[literal-required]
        return batch

    def on_exception(self, exception: BaseException) -> None:
        """Name the file if a worker was killed while reading, or hangs.

        Raises:
            RunError: Instead of the loader's own error.
        """
        if error := worker_error(exception):
            raise error from exception

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint records: classes, evaluation steps, decoding, hash and class of each sample."""
        steps = serialize(self.pipelines.eval_specs())
        names, decided = list(self.class_names), {} if self._decided is None else {"create_dataset": self._decided}
        return {"class_names": names, "eval": steps, "decode": self.decode, **decided, **self.splitter.record()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the split of the checkpoint, so that no image changes sides, and what ``auto`` has decided."""
        self.splitter.load_record(state_dict)
        decided = state_dict.get("create_dataset")
        if decided is not None and self.create_dataset in ("auto", decided):
            self.decide_cache(decided)

    # -- for commands and callbacks

    def predict_on(self, data: ImageDataset) -> None:
        """Set the images to predict."""
        self.splitter.replace("predict", data)
        self.predicted = 0

    def evaluate_by(self, steps: list[Spec] | EvalPreset | None) -> None:
        """Set the evaluation transforms, or a preset of them, replacing the configured ones."""
        self.pipelines = Pipelines(replace(self.pipelines.lists, eval=steps), self._preprocessing, self.image_size)
        self.normalization = self.pipelines.normalization()

    @property
    def may_decide_cache(self) -> bool:
        """Whether ``create_dataset: auto`` may build a cache: images of imgcls' own classes are decoded every epoch."""
        read_by_us = not any(is_own_class(data) for name in AUTO_SPLITS if (data := self.datasets[name]) is not None)
        hashed = self.splitter.kind != "none"
        return self.create_dataset == "auto" and hashed and read_by_us and not self.streams and not self._features

    def decide_cache(self, builds: bool) -> None:
        """Record what ``create_dataset: auto`` has decided; the loaders made from now on use the cache."""
        self.create_dataset = self._decided = builds

    def cache_estimate(self) -> tuple[Path, float]:
        """Return the folder of the cache, and about how many bytes training and validation images take in it."""
        return cache_folder(self.cache_dir), sum(map(self._loaders().cache_bytes, self._auto_splits()))

    def _auto_splits(self) -> list[str]:
        return [name for name in AUTO_SPLITS if len(self.split(name))]

    def _fill_cache(self) -> None:
        """Decode the images of the cache that ``auto`` has decided on; if it cannot be written, train without."""
        alone = self.trainer is None or self.trainer.world_size == 1
        try:
            with interruptible() if alone else nullcontext():  # between two epochs, the last of which is saved
                for name in self._auto_splits():
                    self._loaders().cached(name)
        except (ConfigError, FullDiskError) as error:
            log.warning("%s. Training continues without the cache", error)
            self.create_dataset = False

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the outputs; empty until they are known."""
        return self.splitter.class_names

    @class_names.setter
    def class_names(self, names: list[str]) -> None:
        self.splitter.class_names = names

    def class_counts(self) -> list[int]:
        """Return the number of training images of each class.

        Raises:
            ConfigError: If train is a stream, whose images cannot be counted.
        """
        split = self.split("train")
        if isinstance(split.data, StreamImageDataset):
            raise ConfigError("the classes of a stream cannot be counted; give loss_config.class_weights as a list")
        return split.class_counts(len(self.class_names))

    @property
    def multilabel(self) -> bool:
        """Whether the data is multi-label; known after ``setup``."""
        return self.splitter.multilabel

    @property
    def datasets(self) -> dict[str, ImageDataset | None]:
        """The dataset of each split."""
        return self.splitter.datasets

    @property
    def bad_images(self) -> BadImages:
        """The unreadable images."""
        return self.splitter.bad_images

    @property
    def name(self) -> str:  # type: ignore[override]  # a plain attribute in Lightning
        """A short name of the training data: its path, or that of the folder of splits that contains it."""
        text = str(self.datasets["train"])
        if not os.path.exists(text):
            return text
        parent, name = os.path.split(os.path.abspath(text))
        is_split = name.lower() == "train" and split_folders(parent)[0]["train"] != parent
        return parent if is_split else os.path.join(parent, name)

    @property
    def has_test(self) -> bool:
        """Whether test data are given."""
        return self.datasets["test"] is not None

    @property
    def num_workers(self) -> int:
        """Number of loader workers."""
        if self._num_workers is not None:
            return self._num_workers
        processes = self.trainer.num_devices if self.trainer else 1
        return min(max(available_cores() // processes - 1, 0), MOST_WORKERS)

    @property
    def streams(self) -> bool:
        """Whether train is a stream, whose images are not known before they are read."""
        return isinstance(self.datasets["train"], StreamImageDataset)

    def split(self, name: str) -> Split:
        """Return the split ``train``, ``validation``, ``test`` or ``predict``."""
        return self.splitter.split(name)

    def _preprocessing(self) -> Preprocessing:
        model = getattr(self.trainer, "lightning_module", None)
        if not isinstance(model, PreprocessedModel):
            raise ConfigError(
                f"{KEY}.augmentations: the model has no attribute 'preprocessing'; give both lists, train and eval"
            )
        return model.preprocessing.resized(self.image_size)

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        if self.splitter.stage in {"validate", "test"}:
            self.splitter.refuse_trained(name)
        return self._loaders().evaluation(name)

    @property
    def cached_splits(self) -> tuple[str, ...]:
        """The splits whose images come from the cache."""
        if self.create_dataset is not True:
            return ()
        return AUTO_SPLITS if self._decided else ("train", "validation", "test")

    def _loaders(self) -> LoaderFactory:
        return LoaderFactory(self, self._features)
