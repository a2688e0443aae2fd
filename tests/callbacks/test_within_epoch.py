"""A run that ends within an epoch goes on from its last step, bit for bit."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from imgcls.callbacks.within_epoch import WithinEpoch
from imgcls.cli.main import main
from imgcls.config.sections import ExperimentConfig
from tests.end_to_end.test_resume import assert_equal
from tests.helpers.runs import arguments, assert_same_weights, fails, load
from tests.runtime.test_signals import heard_interrupts


class Signals(Callback):
    """Sends a signal the first time that an epoch comes to a hook, and writes down each step that is done.

    Args:
        path: The file of the steps.
        hook: Name of the hook; ``nothing``: none is sent.
        epoch: The epoch, from 0.
        batch: The batch, from 0; only for hooks of a batch.
        number: The signal.
    """

    def __init__(self, path: str, hook: str, epoch: int = 1, batch: int = 2, number: int = 15) -> None:
        self.path = Path(path)
        self.place = (epoch, batch)
        self.number = number
        if hook != "nothing":
            inner = getattr(self, hook)
            setattr(self, hook, lambda *given: self._send(inner, *given))

    def _send(self, hook: Callable[..., None], trainer: pl.Trainer, *rest: Any) -> None:
        hook(trainer, *rest)
        batch = next((item for item in rest[::-1] if isinstance(item, int)), self.place[1])
        if (trainer.current_epoch, batch) == self.place and not trainer.sanity_checking:
            self.place = (-1, -1)
            signal.raise_signal(self.number)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        with self.path.open("a") as file:
            file.write(f"{trainer.current_epoch} {batch_idx}\n")


def command(photos: Path, model: Path, folder: Path, more: Sequence[str], **options: object) -> list[str]:
    """A fit of three epochs in a folder of its own; ``options`` are those of the signal."""
    folder.mkdir(exist_ok=True)
    given = {"path": str(folder / "steps.txt"), "hook": "nothing", **options}
    callbacks = json.dumps([{"class_path": f"{__name__}.Signals", "init_args": given}])
    line = arguments(photos, model, folder, "--trainer.max_epochs=3", f"--trainer.callbacks={callbacks}")
    return ["fit", *line, *more]


def stop(line: list[str]) -> int:
    with heard_interrupts(), pytest.raises(SystemExit) as stopped:
        main(line)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def assert_same_run(ours: Path, theirs: Path, most_again: int = 0) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_weights(*(folder / "run/version_0/checkpoints" / name for folder in (ours, theirs)))
    states = [load(folder / "run/version_0/checkpoints/last.ckpt") for folder in (ours, theirs)]
    assert_equal(*(state["optimizer_states"] for state in states))
    assert_equal(*(state["current_model_state"] for state in states))
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
    table, other = (pd.read_csv(folder / "run/version_0/metrics.csv") for folder in (ours, theirs))
    pd.testing.assert_frame_equal(table, other, check_exact=True)
    steps = [(folder / "steps.txt").read_text().splitlines() for folder in (ours, theirs)]
    assert len(set(steps[0])) == len(set(steps[1]))
    assert len(steps[0]) - len(set(steps[0])) <= most_again


HOOKS = {  # hook -> where a run goes on that hears the signal there
    "on_train_epoch_start": "after epoch 1",
    "on_train_batch_start": "after step 8, within epoch 2",
    "on_before_optimizer_step": "after step 7, within epoch 2",
    "on_train_batch_end": "after step 9, within epoch 2",
    "on_validation_start": "after step 12, within epoch 2",
    "on_validation_batch_start": "after step 12, within epoch 2",
    "on_validation_batch_end": "after step 12, within epoch 2",
    "on_validation_epoch_end": "after epoch 2",
    "on_validation_end": "after epoch 2",
    "on_train_epoch_end": "after epoch 2",
    "on_save_checkpoint": "after epoch 2",
}
OPTIONS = {
    "validated within": ["--trainer.val_check_interval=3", "--model.scheduler_config={name: plateau, patience: 0}"],
    "accumulated": ["--trainer.accumulate_grad_batches=4"],
}


def stop_and_go_on(
    hook: str, photos: Path, model: Path, folder: Path, more: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """Return where a run goes on that hears a signal at a hook; it does."""
    batch = 0 if hook.startswith("on_validation_batch") else 2
    sent = (signal.SIGINT, signal.SIGTERM)[list(HOOKS).index(hook) % 2]
    assert stop(command(photos, model, folder, more, hook=hook, number=sent, batch=batch)) == 128 + sent, hook
    said = capsys.readouterr().err
    assert "Traceback" not in said
    main([*command(photos, model, folder, more), "--ckpt_path=last"])
    return said.rpartition("Stopped (saved ")[2].partition("). To resume: ")[0]


@pytest.mark.parametrize("hook", ["on_before_optimizer_step", "on_validation_batch_end", "on_save_checkpoint"])
def test_signal_loses_no_step(
    hook: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command(photos, tiny_model, tmp_path / "whole", []))
    assert stop_and_go_on(hook, photos, tiny_model, tmp_path / hook, [], capsys) == HOOKS[hook]
    assert_same_run(tmp_path / hook, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("more", OPTIONS.values(), ids=OPTIONS)
def test_signal_at_any_hook_loses_no_step(
    more: list[str], photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command(photos, tiny_model, tmp_path / "whole", more))
    for hook in HOOKS:
        stop_and_go_on(hook, photos, tiny_model, tmp_path / hook, more, capsys)
        assert_same_run(tmp_path / hook, tmp_path / "whole")


class Breaks(Callback):
    """Fails before a step, without a word to anybody."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("broken off")


@pytest.mark.parametrize(("minutes", "epoch", "step"), [(1e-9, 1, 7), (0, 0, 6), ("null", 0, 6), (10, 0, 6)])
def test_a_long_epoch_is_saved_every_few_minutes(
    minutes: object,
    epoch: int,
    step: int,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path / "parts"), f"--experiment.save_every_minutes={minutes}"]
    breaks = f"{{class_path: {__name__}.Breaks, init_args: {{step: 8}}}}"
    assert fails([*line, f"--trainer.callbacks={breaks}"], capsys)[0] == 1
    last = tmp_path / "parts/run/version_0/checkpoints/last.ckpt"
    content = load(last)
    assert (content["epoch"], content["global_step"]) == (epoch, step)
    main([*line, "--ckpt_path=last"])
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole")])
    assert_same_weights(last, tmp_path / "whole/run/version_0/checkpoints/last.ckpt")


def test_weights_that_are_no_numbers_are_not_saved_at_a_signal(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"class_path": "tests.helpers.killer.Faulty", "init_args": {"kind": "not a number"}}
    given = {"path": str(tmp_path / "steps.txt"), "hook": "on_train_batch_end", "epoch": 0}
    sender = {"class_path": f"{__name__}.Signals", "init_args": given}
    with heard_interrupts():
        code, message = fails(
            ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={json.dumps([broken, sender])}")],
            capsys,
        )
    assert (code, "not finite" in message) == (1, True), message
    assert list((tmp_path / "run/version_0/checkpoints").glob("*.ckpt")) == []


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"experiment\nsave_every_minutes\n"):
        ExperimentConfig(save_every_minutes=-1)


@pytest.mark.parametrize(
    ("device", "processes", "accumulate", "asked"),
    [
        ("cuda", 2, 1, [0, 8, 16]),
        ("cuda", 2, 3, [0, 6, 12, 18]),
        ("cuda", 2, 16, [0, 16]),
        ("cpu", 2, 1, list(range(20))),
        ("cuda", 1, 4, [0, 4, 8, 12, 16]),
    ],
)
def test_processes_on_gpus_are_asked_every_few_batches(
    device: str, processes: int, accumulate: int, asked: list[int]
) -> None:
    found: list[int] = []
    trainer: Any = SimpleNamespace(
        world_size=processes, accumulate_grad_batches=accumulate, is_global_zero=True, strategy=SimpleNamespace()
    )
    trainer.strategy.root_device = torch.device(device)
    within, model = WithinEpoch(None, None), pl.LightningModule()  # type: ignore[arg-type]
    for batch in range(20):
        trainer.strategy.reduce_boolean_decision = lambda *_, batch=batch, **__: bool(found.append(batch))  # type: ignore[func-returns-value]
        within.on_train_batch_start(trainer, model, None, batch)
    assert found == asked
