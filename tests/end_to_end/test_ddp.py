"""Several processes (CPU, gloo, DDP) make the run that one process makes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import pytest
from lightning.pytorch import Callback

from imgcls.cli import parser as cli
from imgcls.cli.main import main
from imgcls.cli.parser import ImgclsCLI
from imgcls.commands.evaluate import Evaluation
from imgcls.data.scan.bad_images import BadImages
from imgcls.errors import ConfigError
from imgcls.runtime.distributed import code_of_others, gather
from imgcls.runtime.warning_filters import quieten
from tests.conftest import write_class_folders
from tests.data.scan.test_bad_images import truncate
from tests.helpers.architectures import tiny_config
from tests.helpers.runs import arguments, assert_same_weights, program, table_of
from tests.runtime.test_signals import start

TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 images: two processes have shares of different length."""
    folder = write_class_folders(tmp_path_factory.mktemp("photos") / "validation", 6, seed=1)
    (folder / "red/000.png").unlink()
    return folder


def write_model(model_type: str, folder: Path) -> Path:
    """The config of a tiny network."""
    config = tiny_config(model_type)
    config.architectures = config.architectures or []
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    return folder


def values_of(checkpoint: Path) -> dict[str, float]:
    """What ``validate`` finds in one process."""
    quieten()
    command = ImgclsCLI(["validate", f"--ckpt_path={checkpoint}"]).command
    assert isinstance(command, Evaluation)
    return {name: float(value) for name, value in command.trainer.callback_metrics.items()}


def line_for(photos: Path, held_out: Path, model: Path, out: Path, *more: str) -> list[str]:
    every = (f"--data.dataset_classes.validation={held_out}", "--trainer.precision=32-true", *TWO, *more)
    return arguments(photos, model, out, *every)


@pytest.mark.parametrize(
    ("model_type", "strategy"),
    [
        ("dinov2", "ddp"),  # has a parameter that never gets a gradient
        pytest.param("convnext", "auto", marks=pytest.mark.slow),
        pytest.param("timm_wrapper", "ddp", marks=pytest.mark.slow),
        pytest.param("siglip", "auto", marks=pytest.mark.slow),
    ],
)
def test_two_processes_find_the_values_of_one(
    model_type: str, strategy: str, photos: Path, held_out: Path, tmp_path: Path
) -> None:
    model = write_model(model_type, tmp_path / "model")
    run = program("fit", *line_for(photos, held_out, model, tmp_path, f"--trainer.strategy={strategy}"))
    assert run.returncode == 0, run.stderr
    assert "warning" not in run.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["version_0"]
    folder = tmp_path / "run/version_0"
    assert run.stdout.splitlines()[-1] == str(folder)
    rows = pd.read_csv(folder / "metrics.csv")
    assert list(rows["epoch"]) == [0, 1]
    predictions = pd.read_csv(folder / "validation_predictions.csv")
    assert list(predictions["path"]) == list(pd.read_csv(folder / "splits.csv").query("split == 'validation'")["path"])
    ours = values_of(folder / "checkpoints/last.ckpt")
    theirs = rows.iloc[-1].to_dict()
    assert ours.keys() == {str(name) for name in theirs if str(name).startswith("validation_")}
    assert ours == {name: pytest.approx(theirs[name], abs=1e-6) for name in ours}


@pytest.fixture(scope="module")
def checkpoint(photos: Path, held_out: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    main(["fit", *line_for(photos, held_out, tiny_model, out, "--trainer.devices=1", "--trainer.max_epochs=1")])
    return out / "run/version_0/checkpoints/best.ckpt"


def test_predictions_of_two_processes_are_those_of_one(checkpoint: Path, held_out: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("broken")
    line = ["predict", f"--ckpt_path={checkpoint}", f"--images={held_out}", f"--images={tmp_path}/broken.png"]
    line += ["--data.batch_size=4", "--data.num_workers=0"]
    main([*line, f"--output={tmp_path}/one.csv"])
    run = program(*line, *TWO, f"--output={tmp_path}/two.csv")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{tmp_path}/two.csv"]
    assert run.stderr.count("1 of 18 images could not be predicted") == 1
    one, two = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(tmp_path / "two.csv")
    assert len(two) == 18
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluations_of_two_processes_are_those_of_one(
    command: str, checkpoint: Path, held_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [command, f"--ckpt_path={checkpoint}", f"--data.dataset_classes.test={held_out}", "--data.batch_size=4"]
    main(line)
    run = program(*line, *TWO)
    assert run.returncode == 0, run.stderr
    assert table_of(run.stdout) == table_of(capsys.readouterr().out)


@pytest.mark.slow
def test_fewer_images_than_processes_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "photos", 1)
    [first, *others] = sorted(folder.glob("*/*.png"))
    for path in others:
        path.unlink()
    run = program("predict", f"--ckpt_path={checkpoint}", f"--images={first}", *TWO, f"--output={tmp_path}/p.csv")
    assert run.returncode == 2
    assert "predict: 2 processes need an image each, got 1 images; use trainer.devices: 1" in run.stderr


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on(photos: Path, held_out: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ("--model.scheduler_config={name: constant, warmup_epochs: 0}",)
    whole = line_for(photos, held_out, tiny_model, tmp_path / "whole", *more)
    parts = line_for(photos, held_out, tiny_model, tmp_path / "parts", *more)
    for line in (whole, [*parts, "--trainer.max_epochs=1"], [*parts, "--ckpt_path=last"]):
        run = program("fit", *line)
        assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "parts/run").iterdir()] == ["version_0"]
    one, other = (tmp_path / name / "run/version_0" for name in ("whole", "parts"))
    assert_same_weights(one / "checkpoints/last.ckpt", other / "checkpoints/last.ckpt")
    pd.testing.assert_frame_equal(
        pd.read_csv(one / "metrics.csv"), pd.read_csv(other / "metrics.csv"), check_exact=True
    )


class Slow(Callback):
    """Says when the second epoch has begun, and takes its time."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 0) and trainer.is_global_zero:
            print("waiting", file=sys.stderr, flush=True)
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_end_at_the_same_step(
    sent: signal.Signals, photos: Path, held_out: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The first one alone hears the signal; the run goes on within its epoch."""
    more = ("--model.scheduler_config={name: constant, warmup_epochs: 0}", "--data.num_workers=1")
    whole = line_for(photos, held_out, tiny_model, tmp_path / "whole", *more)
    parts = line_for(photos, held_out, tiny_model, tmp_path / "parts", *more)
    with start("fit", *parts, f"--trainer.callbacks={__name__}.Slow") as process:
        process.send_signal(sent)
        assert process.wait(20) == 128 + sent
        said = process.stderr.read() if process.stderr else ""  # until the others, too, have closed it
    assert "Traceback" not in said
    assert "--ckpt_path last (saved after step" in said, said
    for line in (whole, [*parts, "--ckpt_path=last"]):
        run = program("fit", *line)
        assert run.returncode == 0, run.stderr
    one, other = (tmp_path / name / "run/version_0" for name in ("whole", "parts"))
    assert_same_weights(one / "checkpoints/last.ckpt", other / "checkpoints/last.ckpt")
    table, others = (pd.read_csv(folder / "metrics.csv") for folder in (one, other))
    pd.testing.assert_frame_equal(table, others, check_exact=True)


# -- images that cannot be read


def test_bad_images_of_all_processes_are_written_down(held_out: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Batches of one: where the image is bad, the process has nothing to learn, and the other one does not hang."""
    train = write_class_folders(tmp_path / "train", 4)
    test = write_class_folders(tmp_path / "test", 3, seed=5)
    bad = {*(train / name / "001.png" for name in ("red", "green", "blue")), test / "red/000.png", test / "red/001.png"}
    for path in bad:
        truncate(path)
    skip = ("--data.on_bad_image=skip", "--data.max_bad_fraction=0.5", "--data.batch_size=1", "--trainer.max_epochs=1")
    line = line_for(train, held_out, tiny_model, tmp_path, *skip, f"--data.dataset_classes.test={test}")
    run = program("fit", *line, timeout=100)
    assert run.returncode == 0, run.stderr
    account = json.loads((tmp_path / "run/version_0/data.json").read_text())
    assert {Path(item["path"]) for item in account["unused"]} == bad
    assert account["used"] == 12 + 17 + 9 - len(bad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["red/000.png", "blue/001.png"])  # one for each process
def test_a_bad_image_of_either_process_ends_the_run_by_name(
    name: str, held_out: Path, tiny_model: Path, tmp_path: Path
) -> None:
    train = write_class_folders(tmp_path / "train", 6)
    truncate(train / name)
    run = program("fit", *line_for(train, held_out, tiny_model, tmp_path, "--data.batch_size=1"), timeout=100)
    assert run.returncode == 2
    said = [line for line in run.stderr.splitlines() if line.startswith("imgcls:")]
    assert said
    assert all(f"{train}/{name}: is truncated" in line for line in said)


def test_joined_bad_images_are_counted_together() -> None:
    ours, theirs = (BadImages("skip", 0.1, {"train": {path: "is empty"}}, {"train": 12}) for path in ("a", "b"))
    with pytest.raises(ConfigError, match="2 of 12 images in train"):
        ours.join([ours, theirs])
    assert ours.found == {"train": {"a": "is empty", "b": "is empty"}}


# -- the parts


def test_one_process_gathers_its_own() -> None:
    assert gather("mine") == ["mine"]


def test_code_of_others() -> None:
    ends = [subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"]) for code in (0, 2)]
    broken = RuntimeError("Connection closed by peer [127.0.0.1]:19887")
    assert code_of_others(broken, ends) == 2
    assert code_of_others(broken, ends[:1]) is None
    assert code_of_others(broken, []) == 1
    assert code_of_others(RuntimeError("out of memory"), []) is None


WAITS = """
import subprocess, time
from imgcls.runtime.distributed import watch
watch([subprocess.Popen(["sh", "-c", "{}"]), subprocess.Popen(["sleep", "600"])])
time.sleep(600)
"""


@pytest.mark.parametrize(("end", "code"), [("exit 2", 2), ("kill -9 $$", 137)])
def test_process_that_waits_for_one_that_failed_ends_as_that_one(end: str, code: int) -> None:
    """As the first one does under NCCL."""
    done = subprocess.run([sys.executable, "-c", WAITS.format(end)], check=False, timeout=60)
    assert done.returncode == code


def test_a_drawn_seed_is_that_of_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "is_first_process", lambda: False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "77")
    assert cli._drawn_seed(1) == 77
    monkeypatch.delenv("PL_GLOBAL_SEED")
    for is_first, machines in ((False, 1), (True, 2)):  # each machine has a first process
        monkeypatch.setattr(cli, "is_first_process", lambda is_first=is_first: is_first)
        with pytest.raises(ConfigError, match="give a number"):
            cli._drawn_seed(machines)
