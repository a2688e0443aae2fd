"""``imgcls models``: the table of starting points."""

import re

import pytest

from imgcls.cli.main import main
from imgcls.cli.models import names, table
from imgcls.models.huggingface.hub import DEFAULT_MODEL


def test_models_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    text = capsys.readouterr().out
    assert text.strip() == table().strip()
    assert re.search(r"^  timm/convnext_nano.in12k_ft_in1k +15\.6   224  82\.9@288$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120
    assert len(set(names())) == len(names()) >= 20
    assert names()[0] == DEFAULT_MODEL


@pytest.mark.slow
def test_sizes_and_parameters_are_those_of_the_architectures() -> None:
    timm = pytest.importorskip("timm")
    import torch

    from imgcls.cli.models import models

    for model in models():
        source, _, name = model["name"].partition("/")
        if source == "timm":
            with torch.device("meta"):
                network = timm.create_model(name.partition(".")[0])
            parameters = sum(parameter.numel() for parameter in network.parameters())
            assert model["parameters"] == pytest.approx(parameters / 1e6, abs=0.01)
            assert model["size"] == timm.get_pretrained_cfg(name).input_size[-1]
