"""``model.init_args.compile``: the same run, compiled; backends that need no compiler stand in for inductor."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from imgcls.cli.main import main
from imgcls.models.training import torch_compile
from tests.helpers.runs import arguments, fails, weights


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is handed to the compiler."""
    found: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        found.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch_compile, "BACKEND", backend)
    return found


def test_a_compiled_run_is_the_plain_one(graphs: list[Any], photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    one = ("--trainer.max_epochs=1", "--trainer.precision=32-true", "--model.scheduler_config.name=constant")
    plain, compiled = (arguments(photos, tiny_model, tmp_path / name, *one) for name in ("plain", "compiled"))
    main(["fit", *plain])
    assert graphs == []
    main(["fit", *compiled, "--model.compile=true"])
    assert any("conv2d" in str(graph.code) for graph in graphs)
    plain_run, compiled_run = (tmp_path / name / "run/version_0" for name in ("plain", "compiled"))
    ours, theirs = (weights(folder / "checkpoints/last.ckpt") for folder in (plain_run, compiled_run))
    assert ours.keys() == theirs.keys()
    assert max((ours[name].float() - theirs[name].float()).abs().max().item() for name in ours) < 1e-5

    # each goes on from the other's checkpoint
    both = ("--trainer.max_epochs=2", "--ckpt_path=last")
    before = len(graphs)
    main(["fit", *compiled, *both])
    assert len(graphs) == before
    main(["fit", *plain, *both, "--model.compile=true"])
    for folder in (plain_run, compiled_run):
        assert list(pd.read_csv(folder / "metrics.csv")["epoch"]) == [0, 1]
    before = len(graphs)
    main(["validate", f"--ckpt_path={compiled_run}/checkpoints/best.ckpt"])
    assert len(graphs) == before


def test_a_machine_that_cannot_compile_is_told_so(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def backend(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    torch.compiler.reset()
    monkeypatch.setattr(torch_compile, "BACKEND", backend)
    code, said = fails(["fit", *arguments(photos, tiny_model, tmp_path, "--model.compile=true")], capsys)
    assert code == 2
    assert "model.init_args.compile: true, but torch.compile does not work on this machine: " in said
    assert "No working C++ compiler found; set it to false" in said


@pytest.mark.slow
def test_inductor_trains(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch._inductor")
    torch.compiler.reset()
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--model.compile=true")])
    assert (tmp_path / "run/version_0/checkpoints/best.ckpt").is_file()
