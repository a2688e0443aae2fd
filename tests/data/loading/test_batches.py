"""Whole batches in memory that workers use again."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from imgcls import Augmentations, DatasetClasses, ImageDataModule
from imgcls.data.loading import shared_memory
from imgcls.data.loading.shared_memory import SLOTS
from imgcls.types import Batch


def loader(photos: Path, workers: int) -> "torch.utils.data.DataLoader[Batch]":
    steps = [{"class_path": "albumentations.Resize", "init_args": {"height": 32, "width": 32}}]
    data = ImageDataModule(DatasetClasses(train=str(photos)), Augmentations(train=steps, eval=steps), 4, workers)
    data.setup("fit")
    return data.train_dataloader()


def test_batches_that_are_held_stay_as_they_are(photos: Path) -> None:
    alone = list(loader(photos, 0))
    shared = loader(photos, 2)
    for _ in range(2):
        held = list(shared)  # all of them at once
        assert len(held) == 12
        assert all(torch.equal(one["image"], two["image"]) for one, two in zip(held, alone, strict=True))
        part = held[0]["image"][1:]
        copy = part.clone()
        del held
        _ = [batch["image"].sum() for batch in shared]
        assert torch.equal(part, copy)


def test_batches_of_inference_mode_are_given_back_outside_of_it(photos: Path) -> None:
    shared = loader(photos, 1)
    with torch.inference_mode():
        batches = iter(shared)
        batch = next(batches)
        place = batch["image"].data_ptr()
    del batch
    assert place in {batch["image"].data_ptr() for batch in batches}


def test_memory_of_batches_that_are_gone_is_used_again(photos: Path) -> None:
    shared = loader(photos, 1)
    places = {batch["image"].data_ptr() for _ in range(5) for batch in shared}
    assert len(places) <= 6  # of 60 batches


def test_memory_of_epochs_that_are_given_up_is_used_again(photos: Path) -> None:
    others = set(multiprocessing.active_children())  # of loaders that earlier tests left to the garbage collector
    shared = loader(photos, 1)
    sizes = []
    for _ in range(12):
        next(iter(shared))
        [worker] = set(multiprocessing.active_children()) - others
        sizes.append(Path(f"/proc/{worker.pid}/maps").read_text().count("/torch_"))
    assert 0 < sizes[-1] <= sizes[3]


def test_slots_of_pinned_batches_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: object())
    memory = shared_memory.BatchMemory(pinned=True)
    places = [memory.allocate((2, 4, 4, 3), np.dtype(np.uint8)).data_ptr() for _ in range(3 * SLOTS)]
    assert places == places[:SLOTS] * 3
    assert len(set(places)) == SLOTS
    assert memory.allocate((3, 4, 4, 3), np.dtype(np.float32)).shape == (3, 4, 4, 3)  # a larger one takes a new slot
