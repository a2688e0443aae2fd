"""imgcls.fit: the run of the command, from keywords, dicts and YAML files."""

import json
import logging
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping

import imgcls
from imgcls.api.configuration import read_sections
from imgcls.cli.main import main
from imgcls.errors import ConfigError
from imgcls.runtime.signals import listening, postponed, stop_if_heard
from tests.helpers.runs import arguments, assert_same_weights


def sections(photos: Path, model: Path, out: Path) -> dict[str, Any]:
    """The configuration of ``tests.helpers.runs.arguments``."""
    return {
        "data": {"dataset_classes": {"train": photos}, "batch_size": 8, "num_workers": 0},
        "model": {"model_name": str(model), "pretrained": False, "optimizer_config": {"lr": 0.01}},
        "trainer": {"max_epochs": 2},
        "experiment": {"output_dir": out, "custom_folder_name": "run"},
    }


def test_all_ways_give_the_run_of_the_command(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path / "command")])
    last = tmp_path / "command/run/version_0/checkpoints/last.ckpt"

    given = sections(photos, tiny_model, tmp_path / "keywords")
    result = imgcls.fit(**given)
    assert result.run_folder == tmp_path / "keywords/run/version_0"
    assert_same_weights(last, result.run_folder / "checkpoints/last.ckpt")
    assert result.results == json.loads((result.run_folder / "results.json").read_text())
    assert list(result.metrics["epoch"]) == [0, 1]
    assert result.classifier.class_names == result.class_names == ["blue", "green", "red"]
    assert given == sections(photos, tiny_model, tmp_path / "keywords")

    dotted = {
        "model": str(tiny_model),
        "model.pretrained": False,
        "model.init_args.optimizer_config.lr": 0.01,
        "data": {"batch_size": 8, "init_args": {"num_workers": 0}, "dataset_classes.train": photos},
        "trainer.max_epochs": 2,
    }
    experiment = imgcls.fit(dotted, experiment={"output_dir": tmp_path / "dict"}).run_folder
    assert experiment is not None
    assert_same_weights(last, experiment / "checkpoints/last.ckpt")

    saved = result.run_folder / "config.yaml"
    again = imgcls.fit(saved, experiment={"output_dir": tmp_path / "yaml"}).run_folder
    assert again == tmp_path / "yaml/run/version_0"
    assert_same_weights(last, again / "checkpoints/last.ckpt")


def test_a_result_is_shown_as_a_table(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = imgcls.fit(photos, **{**sections(photos, tiny_model, tmp_path / "<b>"), "trainer.max_epochs": 1})
    shown, figure = result._repr_html_(), f"{result.results['validation_f1_score']:.4f}"
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "<th>f1_score</th>" in shown
    assert f"<td>{figure}</td>" in shown
    assert "3 classes: &#x27;blue&#x27;" in shown
    assert figure in repr(result)
    assert "validation" in repr(result)


class Counting(Callback):
    """Counts epochs."""

    epochs = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs += 1


def test_callbacks_may_be_objects(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    given, counting = sections(photos, tiny_model, tmp_path), Counting()
    early = {"class_path": EarlyStopping, "init_args": {"monitor": "validation_f1_score", "mode": "max", "patience": 1}}
    given["trainer"] = {"max_epochs": 2, "callbacks": [counting, early], "fast_dev_run": True}
    result = imgcls.fit(**given)
    assert counting.epochs == 1
    assert (result.run_folder, result.results) == (None, {})
    with pytest.raises(ConfigError, match="fast_dev_run keeps no files"):
        _ = result.classifier


def test_values_are_those_of_the_yaml() -> None:
    stopping, given = Counting(), {"patience": 3}
    config, callbacks = read_sections(
        {"data": "photos", "model": {"class_path": imgcls.ImageClassifier, "unfreeze": {2: 0.5}}},
        {
            "trainer": {"callbacks": stopping, "max_epochs": torch.arange(3).numpy()[2]},
            "model": {"optimizer_config": imgcls.OptimizerConfig(lr=0.1)},
            "data.dataset_classes.test": imgcls.FolderImageDataset("test"),
        },
    )
    assert callbacks == [stopping]
    assert config["trainer"] == {"max_epochs": 2}
    assert config["data"] == {"init_args": {"dataset_classes": {"train": "photos", "test": "test"}}}
    assert config["model"]["class_path"] == "imgcls.ImageClassifier"
    assert config["model"]["init_args"]["unfreeze"] == {2: 0.5}
    assert config["model"]["init_args"]["optimizer_config"]["lr"] == 0.1
    assert yaml.safe_load(yaml.safe_dump(config)) == config
    assert given == {"patience": 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trainer": {"max_epoch": 3}}, "imgcls.fit: unknown key 'trainer.max_epoch'; did you mean 'max_epochs'"),
        ({"trainer": {"max_epochs": "many"}}, "trainer.max_epochs must be an integer or null, got 'many'"),
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'"),
        ({"data": {"batch_size": 0}}, "batch_size must be at least 1, got 0"),
        ({"data": "phtos"}, "phtos"),
        ({"config": "gone.yaml"}, "^gone.yaml: no such file"),
        (
            {"model": torch.nn.ReLU()},
            r"^model must be plain values.* got an object of ReLU; .*'class_path': 'torch.nn.",
        ),
        ({"trainer.max_epochs": 3, "trainer.max_epochs.x": 3}, "max_epochs is 3 and has no keys"),
    ],
)
def test_faults_are_errors_of_python(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        imgcls.fit(given.pop("config", None), **given)
    assert "fit.yaml" not in str(caught.value)


class Interrupting(Callback):
    """Presses Ctrl-C in the second step."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)


class Failing(Callback):
    """Has a bug."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise ZeroDivisionError


def process_state() -> list[object]:
    loggers = [
        logging.getLogger(name) for name in ("", "imgcls", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero")
    ]
    return [
        [(log.level, list(log.handlers), list(log.filters), log.propagate) for log in loggers],
        [list(warnings.filters), warnings.formatwarning, warnings.showwarning],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    ]


def test_ctrl_c_saves_and_raises_keyboard_interrupt(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    given, before = sections(photos, tiny_model, tmp_path), process_state()
    given["trainer"]["callbacks"] = [Interrupting()]
    with pytest.raises(KeyboardInterrupt):
        imgcls.fit(**given)
    assert process_state() == before
    assert (tmp_path / "run/version_0/checkpoints/last.ckpt").exists()
    del given["trainer"]["callbacks"]
    result = imgcls.fit(**given, ckpt_path="last")
    assert result.run_folder == tmp_path / "run/version_0"
    assert len(result.metrics) == 2
    assert isinstance(result.metrics, pd.DataFrame)


def press_twice() -> None:
    """Press Ctrl-C twice while a checkpoint is written."""
    with postponed():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # longer than one press of the key


def test_a_second_ctrl_c_leaves_the_process_alive() -> None:
    with listening(ends_process=False):
        with pytest.raises(KeyboardInterrupt):
            press_twice()
        stop_if_heard()  # nothing is left to raise


def test_an_error_of_a_callback_is_raised_as_it_is(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    given, before = sections(photos, tiny_model, tmp_path), process_state()
    given["trainer"]["callbacks"] = [Failing()]
    with pytest.raises(ZeroDivisionError):
        imgcls.fit(**given)
    assert process_state() == before


@pytest.mark.parametrize("name", ["fit", "load"])
def test_threads_of_a_run_from_python_sleep_as_those_of_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    getattr(imgcls, name)
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    getattr(imgcls, name)
    assert os.environ["GOMP_SPINCOUNT"] == "5000"
