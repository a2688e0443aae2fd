"""Builds a cache in a process of its own: ``python -m tests.helpers.cache_builder PHOTOS CACHE LOG N [KILL_AFTER]``."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

from imgcls.data.config import Augmentations, DatasetClasses
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.pixel_cache import build, store
from imgcls.data.splitting.split import Split
from imgcls.datasets.folder import FolderImageDataset
from imgcls.images import Pixels

RESIZE = {"class_path": "Resize", "init_args": {"height": 16, "width": 20}}
GO = "go"  # images are decoded once there is such a file beside the log


class Logged(FolderImageDataset):
    """Writes down each image that it reads; after some, its process is killed."""

    def read(self, index: int) -> Pixels:
        log = Path(os.environ["READ_LOG"])
        with log.open("a") as file:
            file.write(f"{self.samples['path'].iat[index]}\n")
        while not log.with_name(GO).exists():
            time.sleep(0.01)
        if len(log.read_text().splitlines()) == int(os.environ.get("KILL_AFTER", 0)):
            os.kill(int(os.environ["BUILDER"]), signal.SIGKILL)
        return super().read(index)


def main(photos: str, cache: str, log: str, workers: str, kill_after: str = "0") -> None:
    """Build the cache of the training images, and say how bright it is."""
    os.environ |= {"READ_LOG": log, "KILL_AFTER": kill_after, "BUILDER": str(os.getpid())}
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store.COMMIT_SECONDS, build._LARGEST_BATCH = 0.0, 1  # image by image
    data = ImageDataModule(
        DatasetClasses(train=Logged(photos), validation=photos),
        Augmentations(train=[RESIZE], eval=[RESIZE]),
        num_workers=int(workers),
        create_dataset=True,
        cache_dir=cache,
        on_leak="warn",
    )
    data.setup("fit")
    Split.first_readable = lambda self: None  # type: ignore[method-assign]  # on which the lists are tried
    print(sum(int(batch["image"].sum()) for batch in data.train_dataloader()))


if __name__ == "__main__":
    main(*sys.argv[1:])
