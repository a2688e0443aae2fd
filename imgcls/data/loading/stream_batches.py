"""From a stream of images to whole batches, as many in each epoch as its length says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from imgcls.data.config import KEY
from imgcls.data.loading.batches import Room, augment, stack
from imgcls.data.loading.samplers import TrainLoader
from imgcls.data.loading.workers import note
from imgcls.data.splitting.split import refuse_unknown
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.webdataset_stream import Streamed, StreamImageDataset
from imgcls.errors import ConfigError, ImageError
from imgcls.runtime.seeding import mix
from imgcls.types import Batch

PROMISES = (
    "train: a stream cannot be divided, and its images are not known before they are read: no stratified split, no "
    "record of its images or search for copies, and a resumed epoch begins at the start of its stream"
)


@dataclass(frozen=True)
class Share:
    """What one process of a run reads.

    Args:
        rank: Number of the process.
        world: Number of processes.
        seed: The run's seed.
    """

    rank: int
    world: int
    seed: int


class StreamBatches(IterableDataset[Batch]):
    """Reads, augments and collates whole batches of a stream.

    Args:
        data: The stream.
        class_names: The classes in the order of the outputs.
        pipeline: Applied to each image.
        batch_size: Images in a batch.
        share: What this process reads.
        skip_bad: Whether an image that cannot be read is left out of its batch, with its reason in ``skipped``.
        pinned: Whether the loader copies batches to memory that a GPU reads by itself.
    """

    def __init__(
        self,
        data: StreamImageDataset,
        class_names: list[str],
        pipeline: Pipeline,
        batch_size: int,
        share: Share,
        skip_bad: bool,
        pinned: bool = False,
    ) -> None:
        refuse_unknown(data.class_names, class_names, "train")
        self.data = data
        self.places = {name: place for place, name in enumerate(class_names)}
        self.pipeline = pipeline
        self.batch_size = batch_size
        self.share = share
        self.skip_bad = skip_bad
        self._room = Room(pinned)
        self.count = data.length // (batch_size * share.world)
        self.epoch = 0
        self.skip = 0
        if not self.count:
            raise ConfigError(f"{data}: length: {data.length}; {share.world} x batch_size {batch_size} is more")
        if self.most_workers < 1:
            raise ConfigError(
                f"{data}: {len(data.urls)} shards are fewer than the {share.world} processes that read them"
            )

    @property
    def most_workers(self) -> int:
        """How many workers get a shard each."""
        return len(self.data.urls) // self.share.world

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of the epoch, less the first ``skip``; of several workers, over this one's."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        part, parts = self.share.rank * workers + worker, self.share.world * workers
        seed = mix(self.share.seed, self.epoch)
        images = enumerate(self.data.images(seed, part, parts))
        for _ in range(self.skip + worker, self.count, workers):
            yield self._batch(images, partial(mix, seed, part))

    def _batch(self, images: "enumerate[Streamed]", seed_of: "partial[int]") -> Batch:
        pixels: list[NDArray[Any]] = []
        taken: list[Streamed] = []
        skipped: dict[str, str] = {}
        for number, image in islice(images, self.batch_size):
            note(image.path)
            try:
                decoded = self.data.decode(image)
                steps = partial(self.pipeline, seed=seed_of(number))
                pixels.append(augment(steps, decoded, image.path, self.pipeline.where))
                taken.append(image)
            except ImageError as error:
                if not self.skip_bad:
                    raise
                skipped[image.path] = str(error).removeprefix(f"{image.path}: ")
        labels = torch.tensor([self.places[image.label] for image in taken], dtype=torch.int64)
        paths = [image.path for image in taken]
        batch = Batch(image=stack(pixels, len(pixels), self.pipeline.where, self._room), label=labels, path=paths)
        return batch | {"skipped": skipped} if skipped else batch


class StreamLoader(TrainLoader):
    """A loader of as many batches as an epoch has; in a resumed epoch, of those that are left."""

    dataset: StreamBatches

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.dataset.count

    def __iter__(self) -> Any:
        """Iterate over the batches of the trainer's current epoch that are still to come."""
        self.dataset.skip = 0
        if self.trainer is not None and self.trainer.training:
            self.dataset.epoch = self.trainer.current_epoch
            self.dataset.skip = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        yield from super().__iter__()


def check_streams(datasets: Mapping[str, ImageDataset | None], train_on_validation: bool) -> None:
    """Refuse a stream where it cannot be used.

    Args:
        datasets: The dataset of each split.
        train_on_validation: Whether the validation images are trained on, too.

    Raises:
        ConfigError: If a stream is to be evaluated, divided, or joined with another dataset.
    """
    key = f"{KEY}.dataset_classes"
    streams = [name for name, data in datasets.items() if isinstance(data, StreamImageDataset)]
    for name in streams:
        if name != "train":
            raise ConfigError(f"{key}.{name}: a stream is for train alone; give a dataset whose images are known")
    if streams and datasets["validation"] is None:
        raise ConfigError(f"{key}.train: a stream cannot be divided; give dataset_classes.validation")
    if streams and train_on_validation:
        raise ConfigError(f"{key}.train: a stream cannot be joined with validation; leave out train_on_validation")
