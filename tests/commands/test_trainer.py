"""What is chosen for a device, as seen from a machine that lacks it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from imgcls import ImageClassifier, ImageDataModule
from imgcls.commands.trainer import choose_precision, evaluation_precision
from imgcls.data.datamodule import MOST_WORKERS
from imgcls.models.training import torch_compile
from imgcls.models.training.optimizer import OptimizerConfig, Rates, make_optimizer
from imgcls.runtime import distributed
from imgcls.runtime.cores import CORES
from imgcls.runtime.error_messages import explain
from tests.data.test_datamodule import PLAIN, Numbers, module

AUTO: dict[str, Any] = {"accelerator": "auto", "precision": None}


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: capability >= (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize(
    ("capability", "chosen"), [((9, 0), "bf16-mixed"), ((7, 5), "16-mixed"), ((7, 0), "16-mixed"), ((6, 1), "32-true")]
)
def test_precision_of_a_gpu(capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, capability)
    assert choose_precision(AUTO) == chosen


def test_precision_that_a_cpu_lacks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("imgcls.commands.trainer.best_precision", lambda on_gpu: "32-true")
    on_cpu = AUTO | {"accelerator": "cpu"}
    assert choose_precision(on_cpu) == "32-true"
    assert choose_precision(on_cpu | {"precision": "16-mixed"}) == "bf16-mixed"
    assert "16-mixed is several times slower than 32 on this CPU, which has no bfloat16 units" in caplog.text


@pytest.mark.parametrize(
    ("trained", "evaluated"),
    [(None, "32-true"), ("16-mixed", "32-true"), ("bf16-mixed", "32-true"), ("bf16-true", "bf16-true")],
)
def test_precision_of_an_evaluation(trained: str | None, evaluated: str) -> None:
    assert evaluation_precision(AUTO, trained) == evaluated
    assert evaluation_precision(AUTO | {"precision": "bf16-mixed"}, trained) == "bf16-mixed"


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_kernel_of_the_optimizer_is_that_of_the_run_that_goes_on(name: Any) -> None:
    config, rates = OptimizerConfig(name, lr=0.1), Rates(0.1, 0.0, 1.0)
    weights = [[nn.Parameter(torch.ones(2))], [nn.Parameter(torch.ones(2))]]
    former, present = (make_optimizer(config, rates, weights, set(), fused) for fused in (False, True))
    present.load_state_dict(former.state_dict())
    assert [group["fused"] for group in present.param_groups] == [True]
    former.load_state_dict(present.state_dict())
    assert [group["fused"] for group in former.param_groups] == [None]


def test_every_size_of_batch_of_every_trial_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        sizes.append(max(value.shape[0] for value in inputs if value.ndim))
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch_compile, "BACKEND", backend)
    expected = list(range(10, 22))
    for size in expected:
        network = nn.Sequential(nn.Linear(4, 3))
        torch_compile.compile_in_place(network, torch.device("cpu"))
        network(torch.ones(size, 4))
    assert [size for size in sizes if size >= expected[0]] == expected  # the smaller ones are the compiler's test


def test_network_is_built_on_the_processor_wherever_it_will_be(tiny_model: Path) -> None:
    model = ImageClassifier(str(tiny_model), pretrained=False)
    with torch.device("meta"):  # as Lightning does with a GPU
        model.build(["a", "b"])
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_batches_of_a_processor_are_not_pinned_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(Numbers(8), augmentations=PLAIN)
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loader = data.train_dataloader()
    assert loader.pin_memory is False


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("joblib.cpu_count", lambda: 16)
        yield


@pytest.mark.usefixtures("sixteen_cores")
def test_processes_of_a_run_share_the_cores_among_their_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageDataModule()
    assert data.num_workers == 15
    data.trainer = pl.Trainer(accelerator="cpu", devices=4, logger=False, enable_checkpointing=False)
    assert data.num_workers == 3
    monkeypatch.setenv(CORES, "4")
    assert (data.num_workers, ImageDataModule().num_workers) == (0, 3)
    monkeypatch.setenv(CORES, "64")
    assert ImageDataModule().num_workers == MOST_WORKERS


def test_memory_that_is_not_enough_has_a_remedy() -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB\nmore"
    said, code = explain(torch.OutOfMemoryError(text))
    assert code == 1
    assert said == (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB; lower "
        "data.batch_size and raise trainer.accumulate_grad_batches by the same factor to keep the global batch"
    )


def test_processes_that_wait_for_the_first_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_SECONDS", 0.2)
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    distributed.end_others([ended, waiting])
    assert (waiting.wait(60), ended.wait(60)) == (-9, 0)
