"""Files that are whole or not there: links at their names, full disks, left-overs, and who is still writing."""

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock, lock_descriptor

from imgcls.cli.main import main
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import PARTIAL, link, regular, replacing, sweep, write_text
from imgcls.runtime.output_file import lock_output, release_output
from imgcls.runtime.tables import write_table
from tests.helpers.runs import arguments, fails, program, within

SLOW = """
import time
from imgcls.datasets.digits import DigitsDataset
class Slow(DigitsDataset):
    def read(self, index):
        time.sleep(0.05)
        return super().read(index)
"""


@pytest.fixture(scope="module")
def best(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one epoch."""
    out = tmp_path_factory.mktemp("runs")
    main(["fit", *arguments(photos, tiny_model, out, "--trainer.max_epochs=1")])
    return out / "run/version_0/checkpoints/best.ckpt"


# -- one file


def test_a_link_at_the_partial_name_is_not_followed(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "target"
    victim.write_text("mine")
    for name in (f".target.{os.getpid()}.partial", ".target.partial"):
        (tmp_path / name).symlink_to(victim)
    write_text(target, "new")
    assert victim.read_text() == "mine"
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))


def test_a_file_that_failed_leaves_the_old_one_and_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "target"
    write_text(target, "old")
    with pytest.raises(TypeError), replacing(target) as file:
        file.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_text() == "old"


def test_a_name_as_long_as_file_systems_take_is_written(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)
    write_text(target, "x")
    assert target.read_text() == "x"


def test_a_full_disk_is_named_with_its_bytes(small_disk: Path) -> None:
    target = small_disk / "target"
    write_text(target, "old")
    with pytest.raises(OSError, match=rf"{target}: the disk is full \(.*\): it needs 2\.0 MB, \d\.\d MB are free"):
        write_text(target, "x" * 2_000_000)
    assert target.read_text() == "old"
    assert list(small_disk.iterdir()) == [target]


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"{tmp_path}/no/file: cannot be written \(No such file or directory\)"):
        write_text(tmp_path / "no" / "file", "x")


def test_left_overs_are_swept_but_not_those_of_the_living(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    dead = [tmp_path / f".metrics.csv.1{PARTIAL}", tmp_path / f"checkpoints/.last.ckpt.99{PARTIAL}"]
    for path in dead:
        path.touch()
    kept = [tmp_path / "checkpoints/last.ckpt", tmp_path / f"mine{PARTIAL}"]
    for path in kept:
        path.touch()
    script = (
        "import sys; from pathlib import Path; from imgcls.runtime.atomic_files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'x'); file.flush(); print(flush=True); input()"
    )
    line = [sys.executable, "-c", script, str(tmp_path / "living")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        sweep(tmp_path)
        assert [path for path in dead if path.exists()] == []
        assert all(path.exists() for path in kept)
        writer.communicate(b"\n")
    assert (tmp_path / "living").read_bytes() == b"x"


def test_a_second_name_is_not_swept_while_it_is_given(tmp_path: Path) -> None:
    source, target = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    source.write_bytes(b"x")
    link(source, target)
    assert target.samefile(source)
    with source.open("rb") as file:
        assert lock_descriptor(file.fileno(), blocking=False)
        (tmp_path / f".best.ckpt.1{PARTIAL}").hardlink_to(source)
        sweep(tmp_path)
    assert (tmp_path / f".best.ckpt.1{PARTIAL}").exists()


@pytest.mark.parametrize("mode", ["rb", "ab"])
def test_links_and_pipes_are_not_opened(tmp_path: Path, mode: str) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with within(5), pytest.raises(OSError, match="it is a link or a pipe"):
            open(tmp_path / name, mode, opener=regular)  # noqa: SIM115
    with open(tmp_path / "victim", mode, opener=regular):
        pass


def test_a_return_in_a_name_does_not_break_the_row(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a\rb.png", "c\nd.png", 'e"f.png'], "label": ["x", "y", "z"], "split": "train"})
    write_table(tmp_path / "t.csv", table)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(table["path"])
    assert pd.read_csv(tmp_path / "t.csv")["path"].to_list() == list(table["path"])
    write_table(tmp_path / "t.csv", table[1:])
    assert (tmp_path / "t.csv").read_text().startswith("path,label,split\n")


def test_a_fit_sweeps_what_killed_runs_of_its_name_left(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    killed = tmp_path / "run/version_0"
    left = [killed / ".metrics.csv.7.partial", killed / "checkpoints/.last.ckpt.7.partial"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    assert [path for path in left if path.exists()] == []
    assert (tmp_path / "run/version_1/checkpoints/last.ckpt").is_file()


# -- predictions


def predict(best: Path, *more: str) -> list[str]:
    return ["predict", f"--ckpt_path={best}", "--data.num_workers=0", *more]


def test_predictions_follow_no_link_at_a_hidden_name(best: Path, test_photos: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (".p.csv.partial", ".p.csv.1.partial", ".p.csv.unfinished"):
        (tmp_path / name).symlink_to(victim)
    main(predict(best, f"--images={test_photos}", f"--output={tmp_path}/p.csv"))
    assert victim.read_text() == "mine"
    assert not (tmp_path / "p.csv").is_symlink()
    assert len(pd.read_csv(tmp_path / "p.csv")) == 18


def test_a_link_in_place_of_the_lock_is_refused(
    best: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".p.csv.lock").symlink_to(tmp_path / "victim")
    code, said = fails(predict(best, f"--images={test_photos}", f"--output={tmp_path}/p.csv"), capsys)
    assert code == 2
    assert f"{tmp_path}/.p.csv.lock: cannot be locked" in said
    assert said.endswith("; remove it")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_lock_that_the_system_refuses_is_not_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(ConfigError, match="No space left on device; give --output FILE in another folder"):
        lock_output(tmp_path / "p.csv")


def test_parts_of_a_killed_prediction_are_swept(tmp_path: Path) -> None:
    left = [".p[1].csv.part0", ".p[1].csv.part12", "..p[1].csv.part3.0a.partial", ".p[1].csv.0b.partial"]
    others = [".p1.csv.part0", ".p[1].csv.parts", ".q.csv.part0", "p[1].csv"]
    for name in left + others:
        (tmp_path / name).touch()
    release_output(lock_output(tmp_path / "p[1].csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_file_that_another_prediction_has_just_made_is_kept(
    best: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "p.csv"

    def hold(path: Path, option: str) -> FileLock:
        output.write_text("theirs")
        return lock_output(path, option)

    monkeypatch.setattr("imgcls.commands.predict.lock_output", hold)
    code, said = fails(predict(best, f"--images={test_photos}", f"--output={output}"), capsys)
    assert (code, output.read_text()) == (2, "theirs")
    assert f"{output} exists; add --overwrite" in said
    assert not (tmp_path / ".p.csv.lock").exists()


@pytest.mark.parametrize("length", [304, 4000])
def test_an_output_of_too_many_letters_is_refused(
    best: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    path = tmp_path / ("x" * (length - 4) + ".csv")
    code, said = fails(predict(best, f"--images={test_photos}", f"--output={path}"), capsys)
    assert code == 2
    assert said == f"imgcls: --output {path}: cannot be written: File name too long"


def start_slowly(best: Path, folder: Path, output: Path) -> "subprocess.Popen[str]":
    """Start to predict some hundred digits, in batches of one, a twentieth of a second each."""
    (folder / "slow.py").write_text(SLOW)
    data = ["--data.dataset_classes.predict=slow.Slow", "--data.batch_size=1", f"--output={output}"]
    line = [sys.executable, "-m", "imgcls", *predict(best, *data)]
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, count: int = 20) -> Path:
    """Wait until some rows are in a hidden file; return it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for path in folder.glob(".p.csv.unfinished"):
            if path.read_bytes().count(b"\n") > count:
                return path
        time.sleep(0.02)
    raise AssertionError(list(folder.iterdir()))


def test_a_second_prediction_into_one_file_is_refused_at_once(best: Path, test_photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.csv"
    with start_slowly(best, tmp_path, output) as first:
        partial = wait_for_rows(tmp_path)
        second = program(*predict(best, f"--images={test_photos}", f"--output={output}"))
        assert first.poll() is None
        assert second.returncode == 2
        assert f"--output {output}: another process is writing this file; wait for it" in second.stderr
        first.send_signal(signal.SIGKILL)
        first.wait()
    content = partial.read_bytes()
    assert content.endswith(b"\n")
    rows = list(csv.reader(content.decode().splitlines()))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not output.exists()
    main(predict(best, f"--images={test_photos}", f"--output={output}", "--overwrite"))
    assert len(pd.read_csv(output)) == 18
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".p", "p"))) == ["p.csv"]
