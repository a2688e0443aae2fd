"""The parser of the command line: Lightning's options, the user's keys beside a checkpoint's, and untouched globals."""

import inspect
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml

from imgcls.cli import precheck
from imgcls.cli.argv import CommandLine
from imgcls.cli.main import main
from imgcls.cli.parser import ImgclsCLI
from imgcls.config.yaml_values import dump_yaml
from imgcls.errors import ConfigError
from tests.helpers.runs import arguments, fails, load, table_of

# -- dependencies

GLOBALS = """
import inspect, json, logging, signal, threading, warnings
import yaml, jsonargparse
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import subprocess_script
{imports}
print(json.dumps({{
    "yaml": yaml.safe_dump({{"a": "1e3"}}),
    "annotations": str(inspect.unwrap(Trainer.__init__).__annotations__),
    "observer": subprocess_script._launch_process_observer.__module__,
    "filters": len(warnings.filters),
    "format": warnings.formatwarning.__module__,
    "excepthook": threading.excepthook.__module__,
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
    "loggers": {{name: (logging.getLogger(name).level, len(logging.getLogger(name).filters))
                for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")}},
}}))
"""


def test_importing_the_command_line_changes_no_global_of_a_dependency() -> None:
    dependencies = "import lightning.pytorch.cli, transformers, torchmetrics, optuna, albumentations, pandas"
    ours = f"{dependencies}\nimport imgcls.cli.run_command\nimport imgcls.commands.tune\nimport imgcls.commands.check"
    found = [
        subprocess.run([sys.executable, "-c", GLOBALS.format(imports=each)], capture_output=True, text=True, check=True)
        for each in (dependencies, ours)
    ]
    assert json.loads(found[0].stdout) == json.loads(found[1].stdout)


def test_all_options_of_lightnings_trainer_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ImgclsCLI(["fit", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    parameters = dict(inspect.signature(pl.Trainer.__init__).parameters)
    assert printed.keys() == parameters.keys() - {"self"}
    changed = {"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False}
    assert printed == {name: parameters[name].default for name in printed} | changed


@pytest.mark.parametrize("text", ["1e3", "1e-3", "null", "yes", "caf\udce9", "😀", "a: b"])
def test_text_is_read_back_as_a_text(text: str) -> None:
    assert yaml.safe_load(dump_yaml({"a": text})) == {"a": text}
    assert text not in {"1e3", "1e-3"} or dump_yaml({"a": text}) == f"a: '{text}'\n"


# -- the command line


def test_command_line_is_divided_once() -> None:
    given = ["fit", "--trainer.callbacks.0.init_args.patience", "7", "-c=a.yaml", "--model.optimizer_config.lr=null"]
    given += ["--data.init_args.batch_size", "4", "--config", "b.yaml", "--model.init_args.optimizer_config.lr=1"]
    line = CommandLine(given)
    assert line.arguments == [
        *("fit", "--config=a.yaml", "--config=b.yaml"),
        *("--data.init_args.batch_size=4", "--model.init_args.optimizer_config.lr=1"),
    ]
    assert line.items == {"trainer.callbacks.0.init_args.patience": "7"}
    assert not line.asks_for_help


def test_arguments_of_a_dataset_belong_to_the_class_that_is_given() -> None:
    csv, key = "--data.dataset_classes.test.csv=a.csv", "data.dataset_classes.test"
    assert CommandLine(["test", csv]).items == {f"{key}.init_args.csv": "a.csv"}
    for command, given in (("fit", []), ("test", [f"--{key}=CsvImageDataset"]), ("test", [f"--{key}.class_path=X"])):
        assert CommandLine([command, *given, csv]).items == {}


# -- beside a checkpoint


@pytest.fixture(scope="module")
def run(photos: Path, test_photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    main(["fit", *arguments(photos, tiny_model, out, f"--data.dataset_classes.test={test_photos}")])
    return out / "run/version_0"


def section_of(*line: str) -> Any:
    """The configuration of an evaluation that is not run."""

    class Parsed(ImgclsCLI):
        def before_instantiate_classes(self) -> None:
            raise StopIteration

        def instantiate_classes(self) -> None:
            pass

    cli = Parsed.__new__(Parsed)
    with pytest.raises(StopIteration):
        cli.__init__([*line])  # type: ignore[misc]
    return cli.config[line[0]]


def test_keys_of_a_file_and_of_the_command_line_win_over_the_checkpoint(run: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data: {init_args: {batch_size: 5}}\nseed_everything: 7\n")
    checkpoint = f"--ckpt_path={run}/checkpoints/best.ckpt"
    recorded = section_of("validate", checkpoint)
    assert (recorded["data.init_args.batch_size"], recorded["seed_everything"]) == (8, 42)
    given = section_of("validate", checkpoint, f"--config={config}", "--data.on_leak=warn")
    found = [given[key] for key in ("data.init_args.batch_size", "seed_everything", "data.init_args.on_leak")]
    assert found == [5, 7, "warn"]
    assert section_of("validate", checkpoint, "--data.batch_size=32")["data.init_args.batch_size"] == 32  # the default


@pytest.mark.parametrize("more", [["--data.batch_size=8"], ["--trainer.precision=32"]])
def test_own_class_of_a_checkpoint_is_named_by_the_user_alone(
    more: list[str], run: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load(run / "checkpoints/best.ckpt")
    config = json.loads(content["imgcls_config"])
    config["data"]["class_path"] = "scans.Scans"
    torch.save(content | {"imgcls_config": json.dumps(config)}, tmp_path / "own.ckpt")
    line = ["test", f"--ckpt_path={tmp_path}/own.ckpt", *more]
    code, said = fails(line, capsys)
    assert (code, "data: the checkpoint uses your class scans.Scans; add --config" in said) == (2, True), said
    main([*line, "--data=imgcls.ImageDataModule", f"--data.dataset_classes.test={test_photos}"])
    assert "accuracy" in table_of(capsys.readouterr().out)


def test_argument_of_a_recorded_folder_asks_for_the_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--data.dataset_classes.test.root=/elsewhere"]
    code, said = fails(line, capsys)
    assert (code, "give the dataset whole" in said) == (2, True), said


# -- how often files are read


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each checkpoint is read."""
    count: Counter[str] = Counter()
    original = torch.load

    def counted(path: Any, *rest: Any, **options: Any) -> Any:
        count[Path(path).name] += 1
        return original(path, *rest, **options)

    monkeypatch.setattr(torch, "load", counted)
    return count


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_reads_its_checkpoint_once(
    command: str, run: Path, test_photos: Path, tmp_path: Path, reads: Counter[str]
) -> None:
    more = [f"--images={test_photos}", f"--output={tmp_path}/p.csv"] if command == "predict" else []
    main([command, f"--ckpt_path={run}/checkpoints/best.ckpt", *more])
    assert reads == {"best.ckpt": 1}


def test_resumed_fit_reads_each_checkpoint_once(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, reads: Counter[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--data.dataset_classes.test={test_photos}")]
    main([*line, "--trainer.max_epochs=1"])
    assert reads == {"best.ckpt": 3}  # for validation, calibration, and test, since calibration has rewritten it
    reads.clear()
    main([*line, "--ckpt_path=last"])
    assert reads == {"last.ckpt": 1, "best.ckpt": 3}


def test_last_names_other_runs(run: Path, photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fit", *arguments(photos, tiny_model, run.parents[1], "--experiment.custom_folder_name=other")]
    code, said = fails([*line, "--ckpt_path=last"], capsys)
    assert code == 2
    assert f"no checkpoint in {run.parents[1]}/other" in said
    hint = f"imgcls fit --config {run}/config.yaml --experiment.custom_folder_name run --ckpt_path last"
    assert hint in said
    main(["fit", *hint.split()[2:], "--trainer.max_epochs=3"])  # resumes
    assert "Resuming from" in capsys.readouterr().err


def test_item_needs_a_value() -> None:
    with pytest.raises(ConfigError, match=r"--trainer\.callbacks\.0 needs a value"):
        CommandLine(["fit", "--trainer.callbacks.0"])


@pytest.mark.parametrize("images", [["--images=/a"], ["--images", "/a", "/b"], ["--images", "caf\udce9.png", "😀"]])
def test_values_of_a_list_pass_the_check_before_the_parser(images: list[str]) -> None:
    precheck.check(["predict", *images])
    precheck.check(["check", *images, "--allow", "leakage", "unreadable"])
    with pytest.raises(ConfigError, match="--allow"):
        precheck.check(["check", "--allow", "leaks"])
