"""Read, augment and collate the batches of a stream, whose epochs have a given length."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from imgcls.data.config import KEY
from imgcls.data.loading.batches import augment, stack
from imgcls.data.loading.loaders import TrainLoader
from imgcls.data.loading.shared_memory import BatchMemory
from imgcls.data.loading.workers import note
from imgcls.data.splitting.class_labels import refuse_unknown
from imgcls.data.transforms.needed_size import needed_side
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.webdataset_stream import StreamedImage, StreamImageDataset
from imgcls.errors import ConfigError, ImageError
from imgcls.runtime.lightning_loops import batches_started
from imgcls.runtime.seeding import derive_seed
from imgcls.types import Batch

STREAM_LIMITS = (
    "train is a stream: no stratified split, no record of its images, no search for copies; a resumed epoch restarts "
    "at the beginning of its stream"
)


class StreamBatches(IterableDataset[Batch]):
    """Reads, augments and collates whole batches of a stream.

    Args:
        data: The stream.
        class_names: The classes in the order of the outputs.
        pipeline: Applied to each image.
        batch_size: Images per batch.
        seed: The run's seed.
        world_size: Number of processes.
        rank: Rank of this process.
        skip_bad: Whether an unreadable image is left out of its batch, with the reason in ``skipped``.
        pinned: Whether the loader copies batches to pinned memory.
    """

    def __init__(
        self,
        data: StreamImageDataset,
        class_names: list[str],
        pipeline: Pipeline,
        batch_size: int,
        seed: int,
        world_size: int,
        rank: int,
        skip_bad: bool,
        pinned: bool = False,
    ) -> None:
        refuse_unknown(data.class_names, class_names, "train")
        self.data = data
        self.class_indices = {name: index for index, name in enumerate(class_names)}
        self.pipeline = pipeline
        self.min_side = needed_side(pipeline)
        self.batch_size = batch_size
        self.seed = seed
        self.world_size = world_size
        self.rank = rank
        self.skip_bad = skip_bad
        self._memory = BatchMemory(pinned)
        self.count = data.length // (batch_size * world_size)
        self.epoch = 0
        self.skip = 0
        if not self.count:
            least = world_size * batch_size
            raise ConfigError(f"{data}: length must be at least {least}, one batch per process, got {data.length}")
        if self.most_workers < 1:
            raise ConfigError(f"{data}: {world_size} processes need a shard each, got {len(data.urls)} shards")

    @property
    def most_workers(self) -> int:
        """Number of workers for which there is a shard each."""
        return len(self.data.urls) // self.world_size

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of the epoch without the first ``skip``; in a worker, over its part of them."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        part, parts = self.rank * workers + worker, self.world_size * workers
        seed = derive_seed(self.seed, self.epoch)
        images = enumerate(self.data.images(seed, part, parts))
        for _ in range(self.skip + worker, self.count, workers):
            yield self._batch(images, partial(derive_seed, seed, part))

    def _batch(self, images: "enumerate[StreamedImage]", seed_of: "partial[int]") -> Batch:
        pixels: list[NDArray[Any]] = []
        used: list[StreamedImage] = []
        skipped: dict[str, str] = {}
        for number, image in islice(images, self.batch_size):
            note(image.path)
            try:
                decoded = self.data.decode(image, self.min_side)
                steps = partial(self.pipeline, seed=seed_of(number))
                pixels.append(augment(steps, decoded, image.path, self.pipeline.where))
                used.append(image)
            except ImageError as error:
                if not self.skip_bad:
                    raise
                skipped[image.path] = str(error).removeprefix(f"{image.path}: ")
        labels = torch.tensor([self.class_indices[image.label] for image in used], dtype=torch.int64)
        paths = [image.path for image in used]
        batch = Batch(image=stack(pixels, len(pixels), self.pipeline.where, self._memory), label=labels, path=paths)
        return batch | {"skipped": skipped} if skipped else batch


class StreamLoader(TrainLoader):
    """A loader of the batches of an epoch; in a resumed epoch, of the remaining ones."""

    dataset: StreamBatches

    def __len__(self) -> int:
        return self.dataset.count

    def __iter__(self) -> Any:
        self.dataset.skip = 0
        if self.trainer is not None and self.trainer.training:
            self.dataset.epoch = self.trainer.current_epoch
            self.dataset.skip = batches_started(self.trainer)
        yield from super().__iter__()


def check_streams(datasets: Mapping[str, ImageDataset | None], train_on_validation: bool) -> None:
    """Refuse a stream among the datasets of the splits where it cannot be used.

    Raises:
        ConfigError: If a stream would be evaluated, split, or joined with another dataset.
    """
    key = f"{KEY}.dataset_classes"
    streams = [name for name, data in datasets.items() if isinstance(data, StreamImageDataset)]
    for name in streams:
        if name != "train":
            raise ConfigError(f"{key}.{name}: a stream can only be used for train; give another dataset class")
    if streams and datasets["validation"] is None:
        raise ConfigError(f"{key}.train: a stream cannot be split; give dataset_classes.validation")
    if streams and train_on_validation:
        raise ConfigError(f"{key}.train: a stream cannot be joined with validation; remove train_on_validation")
