"""Several workers on one study, databases that are locked, and a database server: real processes."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import text

from imgcls.cli.main import main
from imgcls.config.sections import OptunaConfig
from imgcls.tune.storage import open_storage
from imgcls.tune.study import SharedStudy, TrialClaim
from tests.helpers.runs import program
from tests.tune.test_study import LR, STOPPING, search_task, trials_in, trials_of, tune_line, uniform, write_config


def start(line: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "imgcls", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(worker: "subprocess.Popen[str]", text: str) -> None:
    """Read a worker's lines until one has the text."""
    assert worker.stderr is not None
    for line in worker.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} did not come")


def assert_twelve(trials: list[FrozenTrial], killed: int) -> None:
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(done) == 12
    assert len({trial.params[LR] for trial in done}) == 12
    assert [trial.state.name for trial in trials if trial not in done] == ["FAIL"] * killed


def search_together(line: list[str], kill: bool) -> None:
    """Run three workers; kill one of them in its second trial."""
    workers = [start(line) for _ in range(3)]
    if kill:
        wait_for(workers[0], "starts")
        wait_for(workers[0], "starts")
        workers[0].send_signal(signal.SIGKILL)
    errors = [worker.communicate()[1] for worker in workers]
    expected = [-signal.SIGKILL, 0, 0] if kill else [0, 0, 0]
    assert [worker.returncode for worker in workers] == expected, errors


@pytest.mark.parametrize("kill", [False, True])
def test_three_workers_share_a_study(kill: bool, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 12, "search_spaces": {LR: uniform()}})
    search_together(tune_line(config, photos, tiny_model, tmp_path), kill)
    assert_twelve(trials_of(tmp_path / "run/tune"), killed=int(kill))


def test_one_command_starts_several_workers(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 4, "search_spaces": {LR: uniform()}})
    done = program(*tune_line(config, photos, tiny_model, tmp_path, "--optuna.n_jobs=2"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run/tune"
    assert done.stdout.splitlines()[-1] == str(folder)
    assert len(done.stdout.splitlines()) == 6  # the table is printed once
    trials = trials_of(folder)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    times = [(str(trial.datetime_start), str(trial.datetime_complete)) for trial in trials]
    assert any(
        start < other_end and other_start < end for (start, end), (other_start, other_end) in combinations(times, 2)
    )


def test_drawn_seed_is_that_of_the_study(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 3, "search_spaces": {LR: uniform()}})
    line = tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--seed_everything=true")
    main([*line, "--optuna.n_trials=1"])
    done = program(*line, "--optuna.n_jobs=2")
    assert done.returncode == 0, done.stderr
    configs = [yaml.safe_load(path.read_text()) for path in sorted((tmp_path / "run/tune").glob("trial_*/config.yaml"))]
    assert len(configs) == 3
    [seed] = {config["seed_everything"] for config in configs}
    assert f"seed_everything: {seed}, drawn when the study started" in done.stderr


def wait_for_epoch(folder: Path, trials: int = 1) -> None:
    """Wait until so many trials have trained an epoch."""
    for _ in range(1200):
        if len(list(folder.glob("trial_*/metrics.csv"))) >= trials:
            return
        time.sleep(0.1)
    raise AssertionError("no epoch was trained")


def test_ctrl_c_ends_all_workers(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    patient = {"class_path": STOPPING["class_path"], "init_args": {"monitor": "validation_loss", "patience": 9999}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 50, "search_spaces": {LR: uniform()}}, [patient])
    line = tune_line(config, photos, tiny_model, tmp_path, "--optuna.n_jobs=2", "--trainer.max_epochs=9999")
    with subprocess.Popen(
        [sys.executable, "-m", "imgcls", *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as worker:
        wait_for(worker, "starts")
        wait_for_epoch(tmp_path / "run/tune", trials=2)
        os.killpg(worker.pid, signal.SIGINT)  # as a terminal does
        rest = worker.stderr.read() if worker.stderr else ""
    assert worker.returncode == 130
    assert "Traceback" not in rest
    assert len(re.findall(r"trial \d is interrupted; the same command resumes it", rest)) == 2
    states = [trial.state.name for trial in trials_of(tmp_path / "run/tune")]
    assert sorted(states) == ["FAIL", "FAIL", "WAITING", "WAITING"]


def test_sigterm_ends_all_workers(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    patient = {"class_path": STOPPING["class_path"], "init_args": {"monitor": "validation_loss", "patience": 9999}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": {LR: uniform()}}, [patient])
    worker = start(tune_line(config, photos, tiny_model, tmp_path, "--optuna.n_jobs=2", "--trainer.max_epochs=9999"))
    wait_for(worker, "starts")
    wait_for_epoch(tmp_path / "run/tune")
    worker.send_signal(signal.SIGTERM)
    _, rest = worker.communicate()
    assert worker.returncode == 143, rest
    assert "Traceback" not in rest
    states = [trial.state.name for trial in trials_of(tmp_path / "run/tune")]
    assert states == ["FAIL", "WAITING"]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # heartbeats
def test_transactions_that_read_before_they_write_wait_for_each_other(tmp_path: Path) -> None:
    storages = [open_storage(None, tmp_path, lambda *_: None) for _ in range(2)]
    for storage in storages:
        optuna.create_study(storage=storage, study_name="s", load_if_exists=True)

    def rename(storage: RDBStorage) -> None:
        for _ in range(25):
            with storage.engine.begin() as connection:
                name = connection.execute(text("SELECT study_name FROM studies")).scalar_one()
                time.sleep(0.002)
                connection.execute(text("UPDATE studies SET study_name = :name"), {"name": f"{name}+"})

    with ThreadPoolExecutor() as threads:
        list(threads.map(rename, storages))
    assert optuna.get_all_study_names(storages[0]) == ["s" + 50 * "+"]


def test_locked_database_is_waited_for(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """F36: another process holds the database for 20 seconds."""
    config = write_config(tmp_path / "c.yaml", {"n_trials": 3, "search_spaces": {LR: uniform()}})
    worker = start(tune_line(config, photos, tiny_model, tmp_path))
    wait_for(worker, "trial 1 starts")
    lock = sqlite3.connect(tmp_path / "run/tune/study.db", timeout=30, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    time.sleep(20)
    lock.execute("COMMIT")
    lock.close()
    _, error = worker.communicate()
    assert worker.returncode == 0, error
    assert error.count("study.db: locked by another process; waiting up to 60 s") == 1
    assert [trial.state.name for trial in trials_of(tmp_path / "run/tune")] == ["COMPLETE"] * 3


@pytest.mark.slow
def test_database_locked_for_ever(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """F36: what is done is kept, and the same command goes on when the lock is gone."""
    config = write_config(tmp_path / "c.yaml", {"n_trials": 3, "search_spaces": {LR: uniform()}})
    line = tune_line(config, photos, tiny_model, tmp_path)
    worker = start(line)
    wait_for(worker, "trial 1 starts")
    lock = sqlite3.connect(tmp_path / "run/tune/study.db", timeout=30, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    _, error = worker.communicate()
    lock.execute("COMMIT")
    lock.close()
    assert worker.returncode == 1
    assert "the database of the study cannot be used" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert trials_of(tmp_path / "run/tune")[0].state.name == "COMPLETE"
    again = program(*line)
    assert again.returncode == 0, again.stderr
    assert [trial.state.name for trial in trials_of(tmp_path / "run/tune")].count("COMPLETE") == 3


def server_programs() -> Path | None:
    """The folder of PostgreSQL's programs, None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("pg_ctl")
    return found[-1] if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of our own on the loopback."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    folder = Path("/tmp") / f"imgcls-postgresql-{os.getpid()}"  # noqa: S108 - a socket's path must be short
    folder.mkdir()
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be root
        shutil.chown(folder, "nobody")
        options = {"user": "nobody"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(name: str, *line: str) -> None:
        subprocess.run([programs / name, *line], check=True, capture_output=True, cwd=folder, **options)

    call("initdb", "-D", f"{folder}/data", "-U", "imgcls", "-A", "trust")
    call(
        "pg_ctl",
        "-D",
        f"{folder}/data",
        "-w",
        "-l",
        f"{folder}/log",
        "-o",
        f"-h 127.0.0.1 -p {port} -k {folder}",
        "start",
    )
    try:
        yield f"postgresql+psycopg://imgcls@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # heartbeats
@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_one_worker_at_a_time_changes_a_study_on_a_server(server: str, tmp_path: Path) -> None:
    task = search_task(OptunaConfig(storage=server), tmp_path, "locked")
    first, second = (SharedStudy(task) for _ in range(2))
    claims: list[TrialClaim | None] = []
    other = threading.Thread(target=lambda: claims.append(second.claim()))
    with closing(first), closing(second):
        with first.exclusive():
            other.start()
            trial = first.study.ask(task.space.distributions)  # needs rows that the lock leaves free
            first.study.set_user_attr("mine", 1)
            first.study.tell(trial, 0.5)
            other.join(1)
            assert claims == []
        other.join(60)
        [claim] = claims
        assert claim is not None
        assert claim.trial.number == 1
        claim.lock.release()


@pytest.mark.parametrize("kill", [False, True])
def test_three_workers_share_a_server(kill: bool, server: str, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    name = f"study{int(kill)}"
    section = {"n_trials": 12, "search_spaces": {LR: uniform()}, "storage": server, "study_name": name}
    config = write_config(tmp_path / "c.yaml", section)
    search_together(tune_line(config, photos, tiny_model, tmp_path), kill)
    assert_twelve(trials_in(server, name), killed=int(kill))
    assert (tmp_path / f"run/tune-{name}/best.yaml").exists()


def test_server_that_is_not_there(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    url = "postgresql+psycopg://imgcls@127.0.0.1:1/postgres"
    config = write_config(tmp_path / "c.yaml", {"search_spaces": {LR: uniform()}, "storage": url})
    done = program(*tune_line(config, photos, tiny_model, tmp_path))
    assert done.returncode == 1
    assert "optuna.storage: " in done.stderr.splitlines()[-1]
