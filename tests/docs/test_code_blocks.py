"""Every code block of README.md, CONTRIBUTING.md and docs/ runs, those of a page in order in one folder.

The names of pretrained models are folders with a tiny network there, and fits have a tenth of the epochs.
"""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from imgcls.cli.main import main
from tests.helpers.markdown import PAGES, ROOT, Block, blocks

STUB = """#!/bin/sh
printf '%s\\037' "${0##*/}" "$@" >> "$CALLS"
printf '\\036' >> "$CALLS"
"""
STUBS = ["imgcls", "pip", "python", "nox", "docker", "sbatch", "tensorboard", "hf"]  # written down, not run
EPOCHS = "--trainer.max_epochs"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
WITH_BLOCKS = [page for page in PAGES if any(block.language for block in blocks(page))]


@pytest.mark.filterwarnings("ignore:The number of training batches")  # is below Lightning's logging interval
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch 2.14, of the Trainer of Lightning 2.6
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "world"
    shutil.copytree(world, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.is_run:
            run(block, f"{page.name}:{block.line}", namespace)


def run(block: Block, where: str, namespace: dict[str, Any]) -> None:
    if block.file:
        Path(block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "yaml":
        Path("part.yaml").write_text(block.text, encoding="utf-8")
        run_line(["imgcls", "fit", "--config", "part.yaml", "--print_config"], where)
    elif block.language == "python":
        exec(compile(block.text, where, "exec"), namespace)  # noqa: S102
    elif block.language == "bash":
        run_script(block.text, where)
    elif block.language == "console":
        text = block.text.replace("\\\n", "")
        lines = re.findall(r"^\$ (.+)", text, re.M) or text.splitlines()
        for line in lines:
            run_script(line, where)


def run_script(script: str, where: str) -> None:
    """Run a script in a shell, then the commands that it calls."""
    stubs, calls = Path("stubs").absolute(), Path("calls").absolute()
    stubs.mkdir(exist_ok=True)
    for name in STUBS:
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)
    calls.write_text("")
    environment = {"PATH": f"{stubs}:/usr/bin:/bin", "CALLS": str(calls)}
    done = subprocess.run(["/bin/bash", "-ec", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: {script}\n{done.stderr}"
    for call in calls.read_text(encoding="utf-8").split("\036")[:-1]:
        run_line(call.split("\037")[:-1], where)


def run_line(line: list[str], where: str) -> None:
    program, *arguments = line
    if program == "imgcls":
        code: object = 0
        try:
            main([*arguments, *quick(arguments)])
        except SystemExit as stop:
            code = stop.code
        assert not code, f"{where}: {line}"
    elif program == "nox":
        assert f"def {arguments[-1]}(session" in (ROOT / "noxfile.py").read_text(encoding="utf-8"), where
    elif program == "pip":
        extras = {name for text in arguments for found in re.findall(r"\[(.+)\]", text) for name in found.split(",")}
        assert extras <= EXTRAS.keys(), where


def quick(arguments: list[str]) -> list[str]:
    """Options that make a command quick; the last one given counts."""
    if arguments[0] not in {"fit", "tune"} or "--help" in arguments:
        return []
    given = [int(arguments[place + 1]) for place, text in enumerate(arguments) if text == EPOCHS]
    trials = ["--optuna.n_trials=2"] if arguments[0] == "tune" else []
    return [*trials, "--data.num_workers=0", f"{EPOCHS}={max(1, given[-1] // 10) if given else 1}"]
