"""The order of samples as a function of (seed, epoch), and a loader that starts where the loop stands."""

from types import SimpleNamespace
from typing import cast

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from imgcls.data.loading.loaders import TrainLoader
from imgcls.data.loading.samplers import BalancedSampler, Key, KeyedSampler, RepeatingSampler
from imgcls.runtime.seeding import derive_seed, run_seed
from imgcls.types import Batch


class Keys(Dataset[Batch]):
    """Gives back the places that it is asked for, as paths."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, keys: list[Key]) -> Batch:
        places = [place for place, _ in keys]
        return Batch(image=torch.zeros(len(keys), 3, 1, 1), label=torch.tensor(places), path=list(map(str, places)))


def keys(size: int, epoch: int = 0, shuffle: bool = True, seed: int = 0, ranks: int = 1, rank: int = 0) -> list[Key]:
    sampler = KeyedSampler(Keys(size), shuffle, seed, num_replicas=ranks, rank=rank)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def places(found: list[Key]) -> list[int]:
    return [place for place, _ in found]


def test_keyed_sampler_order_is_a_function_of_seed_and_epoch() -> None:
    assert keys(50, epoch=3, seed=7) == keys(50, epoch=3, seed=7)
    assert sorted(places(keys(50))) == list(range(50))
    orders = {tuple(places(keys(50, epoch, seed=seed))) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_keyed_sampler_gives_each_sample_and_epoch_its_own_seed() -> None:
    seeds = [seed for epoch in range(10) for _, seed in keys(50, epoch)]
    assert len(set(seeds)) == 500
    assert min(seeds) >= 0
    assert dict(keys(50, epoch=2)) == {place: derive_seed(0, 2, place) for place in range(50)}


def test_keyed_sampler_without_shuffling_is_the_same_in_every_epoch() -> None:
    assert places(keys(20, epoch=4, shuffle=False)) == list(range(20))
    assert keys(20, epoch=4, shuffle=False) == keys(20, epoch=0, shuffle=False)


@pytest.mark.parametrize("size", [9, 10, 11, 2])
def test_keyed_sampler_ranks_share_an_epoch_and_pad_for_training_alone(size: int) -> None:
    trained = [places(keys(size, epoch=1, ranks=3, rank=rank)) for rank in range(3)]
    evaluated = [places(keys(size, shuffle=False, ranks=3, rank=rank)) for rank in range(3)]
    assert [len(share) for share in trained] == [-(-size // 3)] * 3
    assert {place for share in trained for place in share} == set(range(size))
    assert sorted(place for share in evaluated for place in share) == list(range(size))
    assert places(keys(size, epoch=1))[0::3] == trained[0][: len(range(0, size, 3))]


def test_balanced_sampler_draws_each_class_alike() -> None:
    labels = np.repeat([0, 1, 2], [800, 150, 50])
    shares = []
    for rank in range(2):
        sampler = BalancedSampler(Keys(1000), labels, seed=0, num_replicas=2, rank=rank)
        sampler.set_epoch(1)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == 500
    drawn = shares[0] + shares[1]
    assert np.bincount(labels[places(drawn)]) / 1000 == pytest.approx([1 / 3] * 3, abs=0.05)
    assert len({seed for _, seed in drawn}) == 1000  # one that is drawn twice is augmented in two ways


def test_balanced_sampler_ranks_augment_an_image_in_different_ways() -> None:
    seeds = []
    for rank in range(2):
        sampler = BalancedSampler(Keys(10), np.repeat([0, 1], 5), seed=0, num_replicas=2, rank=rank)
        for epoch in range(50):
            sampler.set_epoch(epoch)
            seeds += [seed for _, seed in sampler]
    assert len(set(seeds)) == len(seeds) == 500


def test_balanced_sampler_goes_on_where_it_stood() -> None:
    sampler = BalancedSampler(Keys(20), np.repeat([0, 1], [15, 5]), seed=0)
    whole = list(sampler)
    sampler.skip = 8
    assert list(sampler) == whole[8:]
    sampler.set_epoch(1)
    assert list(sampler) != whole[8:]


def test_keyed_sampler_skips_what_was_done() -> None:
    sampler = KeyedSampler(Keys(10), shuffle=True, seed=0)
    sampler.skip = 4
    assert list(sampler) == keys(10)[4:]
    assert len(sampler) == 10  # a whole epoch, by which Lightning counts batches


def test_keyed_sampler_is_one_that_lightning_leaves_in_place() -> None:
    assert isinstance(KeyedSampler(Keys(1), shuffle=False, seed=0), DistributedSampler)


@pytest.mark.parametrize("shuffle", [True, False])
def test_repeating_sampler_stays_at_the_first_epoch(shuffle: bool) -> None:
    sampler = RepeatingSampler(Keys(20), shuffle, seed=3)
    assert isinstance(sampler, SequentialSampler)  # so Lightning leaves it in place under overfit_batches
    sampler.set_epoch(4)
    assert list(sampler) == keys(20, epoch=0, shuffle=shuffle, seed=3)
    assert len(sampler) == 20


def trainer(epoch: int, ready: int) -> pl.Trainer:
    """A stand-in with the two places that a loader asks for."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=ready))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return cast(pl.Trainer, SimpleNamespace(current_epoch=epoch, fit_loop=loop, training=True))


def test_train_loader_starts_where_the_loop_stands() -> None:
    data = Keys(10)
    loader = TrainLoader(
        data, sampler=KeyedSampler(data, shuffle=True, seed=0), batch_size=3, collate_fn=lambda batch: batch
    )
    batches = iter(loader)  # made before Lightning restores the epoch
    loader.trainer = trainer(epoch=2, ready=2)
    assert [batch["label"].tolist() for batch in batches] == [
        places(keys(10, epoch=2))[6:9],
        places(keys(10, epoch=2))[9:],
    ]
    loader.trainer = trainer(epoch=3, ready=0)
    assert torch.cat([batch["label"] for batch in loader]).tolist() == places(keys(10, epoch=3))


def test_train_loader_can_resume_for_lightning() -> None:
    data = Keys(2)
    loader = TrainLoader(data, sampler=KeyedSampler(data, shuffle=True, seed=0), batch_size=1)
    loader.load_state_dict({})
    assert loader.state_dict() == {}


def test_mix_changes_with_every_part() -> None:
    seeds = {derive_seed(*parts) for parts in [(0,), (0, 0), (0, 1), (1, 0), (1,), (0, 0, 0)]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2, 3) == 6520558355739401531  # what old runs drew can be drawn again


def test_run_seed_is_lightnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert run_seed() == 17
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert run_seed() == 0
