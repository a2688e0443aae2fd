"""Completion: what the program proposes, and that a real bash shows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls.cli.main import main
from tests.helpers.runs import fails

BASH = r"""
source "$1"
COMP_LINE="$2"; COMP_POINT=${#2}; COMP_TYPE=9
COMP_WORDS=($2); [[ "$2" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete imgcls "${COMP_WORDS[COMP_CWORD]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two runs; the program is the one that PATH finds."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "imgcls"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m imgcls "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    work = tmp_path / "work"
    for run in ("runs/cats/version_0", "elsewhere/dogs/version_3"):
        (work / run / "checkpoints").mkdir(parents=True)
        (work / run / "checkpoints" / "best.ckpt").touch()
    (work / "c.yaml").touch()
    (work / "notes.md").touch()
    monkeypatch.chdir(work)
    return work


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["completion", shell])
    return capsys.readouterr().out


def proposed(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    Path("script.sh").write_text(script("bash", capsys))
    result = subprocess.run(
        [shutil.which("bash") or "bash", "--norc", "-c", BASH, "bash", "script.sh", line],
        capture_output=True,
        text=True,
        check=True,
    )
    return [each.strip() for each in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("imgcls ", ["fit", "predict", "schema", "completion"], []),
        ("imgcls com", ["completion"], ["fit"]),
        ("imgcls fit --model.opt", ["--model.optimizer_config.lr"], ["--model.model_name"]),
        ("imgcls fit --trainer.max_e", ["--trainer.max_epochs"], ["--trainer.min_epochs"]),
        ("imgcls fit --model.optimizer_config.name ", ["adam", "adamw", "sgd"], ["c.yaml"]),
        ("imgcls fit --data.balanced_sampling t", ["true"], ["false"]),
        (
            "imgcls fit --model.model_name timm/convnext_n",
            ["timm/convnext_nano.in12k_ft_in1k"],
            ["microsoft/resnet-18"],
        ),
        ("imgcls fit --model.model_name r", ["runs/"], ["c.yaml"]),
        ("imgcls fit --config ", ["c.yaml"], ["notes.md"]),
        ("imgcls fit c", ["c.yaml"], ["notes.md"]),
        ("imgcls predict --tta hflip ru", ["runs/"], []),
        ("imgcls check --ckpt", [], ["--ckpt_path"]),
        ("imgcls fit --ckpt_path l", ["last"], []),
        ("imgcls predict --ckpt_path ru", ["runs/cats/version_0/checkpoints/best.ckpt"], []),
        (
            "imgcls fit --experiment.output_dir elsewhere --ckpt_path e",
            ["elsewhere/dogs/version_3/checkpoints/best.ckpt"],
            ["runs/cats/version_0/checkpoints/best.ckpt"],
        ),
        ("imgcls predict --im", ["--images"], []),
        ("imgcls test --model.", ["--model.threshold"], ["--model.model_name"]),
        ("imgcls completion ", ["bash", "zsh", "fish"], []),
    ],
)
def test_bash_proposes(
    line: str, wanted: list[str], unwanted: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = proposed(line, capsys)
    assert {*wanted} <= {*found}, found
    assert not {*unwanted} & {*found}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_of_its_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    assert "imgcls" in text
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("line", [["completion"], ["completion", "cmd"]])
def test_completion_needs_a_shell(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(line, capsys)
    assert (code, "type: imgcls completion bash|zsh|fish" in message) == (2, True)


def test_completion_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "import os, sys\nimport imgcls.cli.main as program\n"
        "os._exit = lambda code: sys.exit(str({'torch', 'lightning', 'numpy'} & {*sys.modules} or ''))\n"
        "program.main([])"
    )
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": "imgcls fit --mo",
        "COMP_POINT": "15",
        "_ARGCOMPLETE_STDOUT_FILENAME": "out",
    }
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert result.stderr.strip() == ""
    assert "--model.model_name" in Path("out").read_text()
