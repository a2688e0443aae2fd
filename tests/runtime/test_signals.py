"""Signals and exit codes of the real program."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.popen_fork import Popen
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from imgcls.checkpoints.io import AtomicCheckpointIO
from imgcls.cli.main import main
from imgcls.data.loading.workers import WatchedLoader
from imgcls.runtime import signals
from imgcls.runtime.signals import Stopped, listening, postponed
from tests.helpers.runs import arguments, fails, load


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
    assert "run/version_0/config.yaml --ckpt_path last" in rest


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
    assert "run/version_0/config.yaml --ckpt_path last" in said


_in_fork: list[Callable[[], None]] = []
os.register_at_fork(after_in_parent=lambda: _in_fork.pop()() if _in_fork else None)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_interrupt_in_a_hook_of_a_fork_is_not_lost() -> None:
    """Python drops what is raised there; the loader is whole, or its finalizer would complain."""
    _in_fork.append(interrupt)
    with heard_interrupts(), listening(), pytest.raises(Stopped):
        list(WatchedLoader(range(3), num_workers=1))  # type: ignore[arg-type]


def test_interrupt_in_the_callback_of_a_weak_reference_is_raised_again() -> None:

    def drop_and_wait() -> None:
        weakref.finalize(set[int](), interrupt)  # it is gone at once
        time.sleep(5)
        raise AssertionError("nothing was raised")

    with heard_interrupts(), listening(), pytest.raises(Stopped):
        drop_and_wait()


def test_interrupt_while_workers_start_is_raised_when_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    launch, started = Popen._launch, []  # type: ignore[attr-defined]

    def launch_and_interrupt(self: Popen, worker: object) -> None:
        launch(self, worker)
        started.append(worker)
        interrupt()

    monkeypatch.setattr(Popen, "_launch", launch_and_interrupt)
    with heard_interrupts(), listening(), pytest.raises(Stopped):
        list(WatchedLoader(range(3), num_workers=2))  # type: ignore[arg-type]
    assert len(started) == 2


def test_interrupt_while_a_checkpoint_is_written_leaves_it_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save = torch.save

    def save_and_interrupt(content: object, file: Any) -> None:
        if not isinstance(file, io.BytesIO):  # the file, not the check of what it is to hold
            interrupt()
        save(content, file)

    monkeypatch.setattr(torch, "save", save_and_interrupt)
    with heard_interrupts(), listening(), pytest.raises(Stopped):
        AtomicCheckpointIO().save_checkpoint({"value": torch.ones(3)}, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt")["value"].sum() == 3


class Slow(Callback):
    """Takes a minute where it is asked to, after a line on standard error.

    Args:
        hook: Name of the hook.
    """

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._wait)

    def _wait(self, *_: object) -> None:
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(60)


def start(*line: str) -> "subprocess.Popen[str]":
    """Start the program in a session of its own, and wait until it waits."""
    process = subprocess.Popen(
        [sys.executable, "-m", "imgcls", *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert process.stderr is not None
    for text in process.stderr:
        if text == "waiting\n":
            break
    return process


def test_a_second_interrupt_ends_at_once(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """In the midst of a step, which the first one waits for; workers end with it, and what is there stays whole."""
    slow = f"--trainer.callbacks={{class_path: {__name__}.Slow, init_args: {{hook: on_before_optimizer_step}}}}"
    with start("fit", *arguments(photos, tiny_model, tmp_path, slow, "--data.num_workers=2")) as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(3) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()  # which ends when the workers, too, have closed it


@pytest.mark.parametrize("hook", ["setup", "on_train_start", "on_validation_start"])
def test_signal_before_the_first_step_or_in_an_evaluation(
    hook: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_path = f"{__name__}.Terminated"
    line = ["fit", *arguments(photos, tiny_model, tmp_path), "--trainer.max_epochs=1"]
    if hook == "on_validation_start":
        main(line)
        line = ["validate", f"--ckpt_path={tmp_path / 'run/version_0/checkpoints/last.ckpt'}", "--data.num_workers=0"]
    with pytest.raises(SystemExit) as stop:
        main([*line, f"--trainer.callbacks={{class_path: {class_path}, init_args: {{hook: {hook}}}}}"])
    assert stop.value.code == 143
    assert "Traceback" not in capsys.readouterr().err


class Terminated(Callback):
    """Sends SIGTERM.

    Args:
        hook: Name of the hook.
    """

    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *_, **__: signal.raise_signal(signal.SIGTERM))


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
    said = capsys.readouterr().err
    command = re.search(r"^Stopped.*\. To resume: imgcls (.*)$", said, re.MULTILINE)
    assert command, said
    assert command[1].endswith("/config.yaml --ckpt_path last --experiment.only_weights_load false")
    main([*shlex.split(command[1]), "--trainer.callbacks=null"])
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
    assert "run/version_0/config.yaml --ckpt_path last" in rest


def test_interrupt_while_modules_are_imported() -> None:
    with subprocess.Popen(
        [sys.executable, "-v", "-m", "imgcls", "fit", "--data.dataset_classes.train=."],
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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signal_waits_for_the_end_of_a_block(sent: signal.Signals) -> None:
    reached = []

    def press(times: int) -> None:
        with postponed():
            for number in range(times):
                signal.raise_signal(sent)
                reached.append(number)

    with heard_interrupts(), listening():
        with pytest.raises(Stopped) as stop:
            press(2)  # at the same moment: launchers pass on what the terminal has sent to all
        assert (reached, stop.value.code) == ([0, 1], 128 + sent)
        press(0)  # it is over


def test_unwritable_output_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path / "file")], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: experiment.output_dir: cannot write to {tmp_path / 'file' / 'run'}")


@pytest.mark.parametrize(("first", "passed_on"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_what_the_parent_passes_on_late_is_the_same_press(
    first: signal.Signals, passed_on: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal's Ctrl-C reaches all processes; a parent on a loaded machine adds its own signal a second later."""
    ended: list[int] = []
    monkeypatch.setattr("imgcls.runtime.signals._end_at_once", ended.append)
    with heard_interrupts(), listening(), suppress(Stopped), postponed():
        signal.raise_signal(first)
        time.sleep(0.5)
        signal.raise_signal(passed_on)
        assert ended == []
        signal.raise_signal(first)
    assert ended == [first]


def test_a_second_signal_ends_the_processes_that_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever they have heard before: the other one would be the same press to them."""
    sent: list[int] = []
    monkeypatch.setattr(os, "_exit", lambda _: None)
    with heard_interrupts(), listening(), suppress(Stopped), postponed():
        signals.end_with_this([SimpleNamespace(send_signal=sent.append)])  # type: ignore[list-item]
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.3)
        signal.raise_signal(signal.SIGINT)
    assert set(sent) == {signal.SIGINT, signal.SIGTERM}
