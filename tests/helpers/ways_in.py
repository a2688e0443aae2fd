"""Train on a dataset class through the real entry point, and evaluate the checkpoint without a configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from imgcls.cli.main import main
from tests.helpers.runs import arguments, table_of

Spec = dict[str, Any]


class Trainer:
    """Fits tiny models below a folder.

    Args:
        folder: The working directory while it trains.
        model: The model's folder.
        capsys: What is printed.
    """

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.model = model
        self.capsys = capsys
        self.run = folder / "runs/run/version_0"

    def fit(self, train: Spec, *more: str, **others: Spec | str) -> dict[str, list[str]]:
        """Fit in the folder, with other datasets by split; return the table of results."""
        texts = {name: spec if isinstance(spec, str) else json.dumps(spec) for name, spec in others.items()}
        given = [f"--data.dataset_classes.{name}={text}" for name, text in texts.items()]
        line = arguments(Path(), self.model, self.folder / "runs", "--trainer.max_epochs=6", *given, *more)
        line[0] = f"--data.dataset_classes.train={json.dumps(train)}"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            main(["fit", *line])
        return table_of(self.capsys.readouterr().out)

    def evaluate(self, command: str, *more: str) -> str:
        """Run a command on the best checkpoint from another directory; return what it prints."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir("/")
            main([command, "--ckpt_path", str(self.run / "checkpoints/best.ckpt"), *more])
        return self.capsys.readouterr().out


@pytest.fixture
def trainer(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Trainer:
    return Trainer(tmp_path, tiny_model, capsys)


def assert_learned_and_found_again(trainer: Trainer, train: Spec, test: Spec) -> None:
    """The colours are told apart, and the checkpoint alone finds the test images again."""
    accuracy = trainer.fit(train, test=test)["accuracy"][-1]
    assert float(accuracy) > 0.6
    assert table_of(trainer.evaluate("test"))["accuracy"] == [accuracy]
