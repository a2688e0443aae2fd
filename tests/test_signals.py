"""Signals and exit codes of the real program."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from imgcls.cli.main import main
from imgcls.runtime.signals import lasting_interrupts, postponed_interrupts
from tests.runs import arguments, fails


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_in_training_gives_its_exit_code(
    sent: signal.Signals, code: int, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    patient = [
        "--trainer.callbacks=EarlyStopping",
        "--trainer.callbacks.monitor=train_loss",
        "--trainer.callbacks.patience=10000",
    ]
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=10000", *patient)
    with subprocess.Popen(
        [sys.executable, "-m", "imgcls", "fit", *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts its job in the background makes it ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("epoch 2/"):
                break
        process.send_signal(sent)
        rest = process.stderr.read()
    assert process.returncode == code
    assert "Traceback" not in rest
    assert "with --ckpt_path last goes on" in rest


@contextmanager
def heard_interrupts() -> Iterator[None]:
    """A shell that starts its job in the background makes it ignore Ctrl-C."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


class InterruptedFinalizer(Callback):
    """Sends Ctrl-C in a ``__del__``, where Python drops what is raised."""

    class _Sender:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._Sender()


def test_interrupt_in_a_finalizer_is_not_lost(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = f"--trainer.callbacks={__name__}.InterruptedFinalizer"
    with heard_interrupts(), pytest.raises(SystemExit) as stop:
        main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=10000", callback)])
    said = capsys.readouterr().err
    assert stop.value.code == 130
    assert "Traceback" not in said
    assert "with --ckpt_path last goes on" in said


class Interrupted(Callback):
    """Sends Ctrl-C as the second epoch begins."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)


def test_a_run_from_weights_goes_on_as_its_last_line_says(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    weights = f"--ckpt_path={tmp_path / 'run/version_0/checkpoints/last.ckpt'}"
    line += [weights, "--experiment.only_weights_load=true"]
    capsys.readouterr()
    with heard_interrupts(), pytest.raises(SystemExit):
        main([*line, f"--trainer.callbacks={__name__}.Interrupted"])
    more = "--ckpt_path last --experiment.only_weights_load false"
    assert f"the same command with {more} goes on" in capsys.readouterr().err
    main([*line, *more.split()])
    assert list(pd.read_csv(tmp_path / "run/version_1/metrics.csv")["epoch"]) == [0, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a worker who sent a signal")
def test_sigterm_to_all_processes_of_a_job(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """As systemd and cluster schedulers send it: the loader workers last until the run is saved."""
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=10000", "--data.num_workers=2")
    with subprocess.Popen(
        [sys.executable, "-m", "imgcls", "fit", *line, "--experiment.monitor=train_loss"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("epoch 2/"):
                break
        os.killpg(process.pid, signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 143, rest
    assert "worker" not in rest
    assert "with --ckpt_path last goes on" in rest


def test_interrupt_while_modules_are_imported() -> None:
    with subprocess.Popen(
        [sys.executable, "-v", "-m", "imgcls", "fit"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if "import 'torch" in text:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest


@pytest.mark.parametrize("presses", [1, 2])
def test_interrupt_waits_for_the_end_of_a_block_but_a_second_does_not(presses: int) -> None:
    reached = []

    def press(times: int) -> None:
        with postponed_interrupts():
            for number in range(times):
                signal.raise_signal(signal.SIGINT)
                reached.append(number)

    with heard_interrupts(), lasting_interrupts():
        with pytest.raises(KeyboardInterrupt):
            press(presses)
        assert reached == [0]
        press(0)  # it is over


def test_unwritable_output_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path / "file")], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: experiment.output_dir: cannot write to {tmp_path / 'file' / 'run'}")
