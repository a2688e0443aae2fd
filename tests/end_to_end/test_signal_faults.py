"""Signals at seeded moments of whole runs: nothing is lost, torn or left behind; ``nox -s faults`` runs them."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgcls.checkpoints.io import is_intact
from imgcls.runtime.cores import available_cores
from tests.conftest import write_class_folders
from tests.end_to_end.test_resume import assert_equal
from tests.helpers.moments import Ended, Moment, Program, program
from tests.helpers.runs import arguments, assert_same_weights, load

pytestmark = pytest.mark.faults

INT, TERM = signal.SIGINT, signal.SIGTERM
SENT = [[INT], [INT, INT], [TERM]]
ANYWHERE = ""
PLACES = {
    "workers start": ("workers.py:__iter__", 5),
    "checkpoint written": ("io.py:save_checkpoint", 3),
    "images hashed": ("data/scan/", 1),
    "cache built": ("pixel_cache/build.py:", 1),
}


def moments(count: int, seconds: float) -> list[tuple[str, Moment]]:
    """Half of them anywhere in a run of so many seconds, half at the places; each kind of signals as often."""
    generator = np.random.default_rng(17)
    found = []
    for number in range(count):
        sent = [int(each) for each in SENT[number // 2 % 3]]
        if number % 2:
            name = list(PLACES)[number // 6 % 4]
            place, most = PLACES[name]
            moment = Moment(place, int(generator.integers(1, most, endpoint=True)), generator.uniform(0, 0.02), sent)
        else:
            name, moment = "anywhere", Moment(ANYWHERE, 1, generator.uniform(0, 0.9 * seconds), sent)
        found.append((name, moment))
    return found


@pytest.fixture(scope="module")
def forks() -> Iterator[Program]:
    with program() as found:
        yield found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("images") / "train", 40)


def line(images: Path, model: Path, folder: Path) -> list[str]:
    trace = f"{{class_path: tests.helpers.moments.Traced, init_args: {{path: {folder / 'trace.txt'}, seconds: 0.02}}}}"
    more = [
        "--data.num_workers=2",
        "--data.create_dataset=true",
        "--trainer.precision=32",
        f"--trainer.callbacks=[{trace}]",
    ]
    return ["fit", *arguments(images, model, folder, "--trainer.max_epochs=3", *more)]


def go_on(forks: Program, command: list[str], folder: Path) -> Ended:
    """Run the same command again, from its checkpoint if there is one."""
    checkpoints = list(folder.glob("run/version_*/checkpoints/*.ckpt"))
    assert all(is_intact(path) for path in checkpoints)
    return forks.run([*command, *(["--ckpt_path=last"] if checkpoints else [])], folder)


def limit() -> float:
    """Seconds that an end may take: 3, and longer on a machine that others keep busy."""
    return 3 * max(1.0, os.getloadavg()[0] / available_cores())


def test_signals_at_60_moments(forks: Program, images: Path, tiny_model: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    never = Moment("nowhere", 1, 0, [])
    done = forks.run(line(images, tiny_model, whole), whole, never)
    assert done.code == 0, done.said
    table, wrong = Counter[tuple[str, str, str]](), []
    for number, (name, moment) in enumerate(moments(60, done.worked)):
        problem = try_moment(forks, images, tiny_model, tmp_path / str(number), moment, whole)
        table[name, "+".join(signal.Signals(each).name for each in moment.sent), problem] += 1
        if problem:
            wrong.append(f"{number} {name} {moment}: {problem}")
    for row, count in sorted(table.items()):
        print(*row, count, sep="\t")
    assert not wrong, "\n".join(wrong)


def try_moment(forks: Program, images: Path, model: Path, folder: Path, moment: Moment, whole: Path) -> str:
    """Return what goes wrong, empty if nothing does."""
    folder.mkdir()
    command = line(images, model, folder)
    stopped = forks.run(command, folder, moment)
    if not stopped.fired and moment.after > 0.1:  # the run was faster than the one that was measured
        sooner = replace(moment, after=moment.after / 2)
        return try_moment(forks, images, model, folder.with_name(f"{folder.name}_sooner"), sooner, whole)
    if not stopped.fired:
        return f"no signal was sent; code {stopped.code}"
    if stopped.code != 128 + moment.sent[0]:
        return f"code {stopped.code}: {stopped.said}"
    if "Traceback" in stopped.said or "ignored in" in stopped.said or stopped.left or stopped.seconds > limit():
        return f"{stopped.seconds:.1f} s, left: {stopped.left}: {stopped.said}"
    resumed = go_on(forks, command, folder)
    if resumed.code:
        return f"goes on: code {resumed.code}: {resumed.said}"
    [run] = [path.parent.parent for path in folder.glob("run/version_*/checkpoints/last.ckpt")]
    theirs = whole / "run/version_0"
    assert_same_weights(theirs / "checkpoints/last.ckpt", run / "checkpoints/last.ckpt")
    assert_same_weights(theirs / "checkpoints/best.ckpt", run / "checkpoints/best.ckpt")
    ours, others = (load(path / "checkpoints/last.ckpt")["optimizer_states"] for path in (run, theirs))
    assert_equal(ours, others)
    again = Counter((folder / "trace.txt").read_text().splitlines())
    twice = sum(again.values()) - len(again)
    saved = len(moment.sent) == 1 or "stopped; " in stopped.said  # else the second signal broke that off
    return f"{twice} steps are done again" if twice > 1 and saved else ""
