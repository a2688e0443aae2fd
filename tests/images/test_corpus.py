"""What the reader makes of each file of the corpus, in a process of its own: a crash or a hang is a failure."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cases import Case
from tests.helpers.corpus import write_corpus

SECONDS = 120  # for all files; a reader takes about four
GROWTH = 300  # MB


@dataclass(frozen=True)
class Reading:
    cases: list[Case]
    found: list[dict[str, Any]]
    growth: float
    printed: str


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which others may not enter
        folder = Path(name)
        folder.chmod(0o755)
        cases = write_corpus(folder / "corpus")
        tasks = [(str(case.path), list(case.expected.probes)) for case in cases]
        (folder / "tasks.json").write_text(json.dumps(tasks), encoding="ascii")
        command = [sys.executable, "-m", "tests.helpers.read_corpus", f"{folder}/tasks.json", f"{folder}/results.json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        results = json.loads((folder / "results.json").read_text(encoding="ascii"))
        yield Reading(cases, results["found"], results["growth"], done.stdout + done.stderr)


def wrong(reading: Reading, judge: Any) -> list[str]:
    """One line for each case that a judgement finds fault with."""
    pairs = zip(reading.cases, reading.found, strict=True)
    return [f"{case.path.name!r}: {fault}" for case, found in pairs if (fault := judge(case, found))]


def test_good_files_are_read_right(reading: Reading) -> None:
    def judge(case: Case, found: dict[str, Any]) -> str:
        if not case.expected.good:
            return ""
        if found["size"] != list(case.expected.size):
            return f"size {found['size']}, expected {case.expected.size}: {found.get('reason')}"
        expected = np.array([*case.expected.probes.values()]).reshape(-1, 3)
        difference = np.abs(np.array(found["probes"]).reshape(-1, 3) - expected)
        return (
            f"{found['probes']}, expected {expected.tolist()}" if (difference > case.expected.tolerance).any() else ""
        )

    assert sum(case.expected.good for case in reading.cases) > 250
    assert wrong(reading, judge) == []


def test_bad_files_are_refused_with_the_reason(reading: Reading) -> None:
    def judge(case: Case, found: dict[str, Any]) -> str:
        reason = found.get("reason", "")
        right = reason and case.expected.reason in reason and len(reason.splitlines()) == 1
        return "" if case.expected.good or right else f"{reason!r}, expected {case.expected.reason!r}"

    assert sum(not case.expected.good for case in reading.cases) > 120
    assert wrong(reading, judge) == []


def test_headers_agree_with_the_pixels(reading: Reading) -> None:
    def judge(case: Case, found: dict[str, Any]) -> str:
        if case.expected.good:
            return "" if found["header"] == found["size"] else f"{found['header']}: {found.get('header_reason')}"
        if case.expected.late:
            return ""
        same = found.get("header_reason") == found.get("reason")
        return "" if same else f"{found.get('header_reason')!r}, expected {found.get('reason')!r}"

    assert wrong(reading, judge) == []


def test_nothing_takes_much_memory_or_prints(reading: Reading) -> None:
    assert reading.growth < GROWTH
    assert reading.printed == ""
