"""The command: what it prints and writes, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from imgcls.cli.main import main
from tests.helpers.given_answers import answers, config, write_run

LABELS = np.arange(300) % 3
NAMES = ("cat", "dog", "<b>owl")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    hits = [rng.random(300) < share for share in (0.9, 0.7)]
    settings = [config(), config(lr=0.1)]
    return [
        str(write_run(tmp_path / name, LABELS, answers(LABELS, right, 3), names=NAMES, settings=each))
        for name, right, each in zip(("one", "two"), hits, settings, strict=True)
    ]


def test_prints_tables_and_verdict(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", *runs])
    out = capsys.readouterr().out
    assert re.search(r"^differs +A +B$", out, re.M)
    assert re.search(r"^model.optimizer_config.lr +0.001 +0.1$", out, re.M)
    assert re.search(r"^A +\d\d\.\d % \(\d\d\.\d-\d\d\.\d\)", out, re.M)
    assert "A is better than B by" in out
    assert "exact McNemar test" in out


def test_writes_a_page_and_json(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, record = tmp_path / "new" / "compare.html", tmp_path / "compare.json"
    main(["compare", *runs, "--output", str(page), "--json", str(record)])
    found = json.loads(record.read_text(encoding="utf-8"))
    text = unescape(page.read_text(encoding="utf-8"))
    assert f"Page: {page}" in capsys.readouterr().out
    assert found["pairs"][0]["better"] == "A"
    assert found["pairs"][0]["verdict"] in text.replace("\N{NO-BREAK SPACE}", " ")
    others = r'<p class="remark">Other scores: A is better in macro F1 .*</p>'
    names = r'<p><span class="letter">A</span> .*/one, <span class="letter">B</span> .*/two</p>'
    assert re.search(rf"p.<.0\.001\)\.</h1>\s*{others}\s*{names}", text)
    assert ">p</th>" in text  # not adjusted: there is one pair
    for option, file in (("--output", page), ("--json", record)):
        with pytest.raises(SystemExit, match="2"):
            main(["compare", *runs, option, str(file)])
        assert f"{file} exists; add --overwrite" in capsys.readouterr().err
        main(["compare", *runs, option, str(file), "--overwrite"])
    assert found["settings"] == {"model.optimizer_config.lr": ["0.001", "0.1"]}
    values = dict(re.findall(r'data-name="(.+?)" data-value="(.+?)"', text))
    for each in found["configurations"]:
        for name, score in each["scores"].items():
            assert float(values[f"{each['name']}.{name}"]) == score["value"]
            assert score["interval"][0] <= score["value"] <= score["interval"][1]
    for name, score in found["pairs"][0]["scores"].items():
        assert float(values[f"A-B.{name}"]) == score["difference"]
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<script" not in text


def test_a_pair_of_single_runs_beside_several_seeds(runs: list[str], tmp_path: Path) -> None:
    seeds = [
        str(write_run(tmp_path / f"seed{seed}", LABELS, answers(LABELS, LABELS < 2, 3), names=NAMES, settings=each))
        for seed, each in enumerate((config(1, lr=1), config(2, lr=1)))
    ]
    page = tmp_path / "compare.html"
    main(["compare", *seeds, *runs, "--output", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.count("Correct in only one run</th>") == 1
    assert len(re.findall(r"<td>\d+ and \d+ images</td>", text)) == 1


def test_needs_no_torch(runs: list[str]) -> None:
    code = (
        f"import sys; from imgcls.cli.main import main; main(['compare', *{runs!r}]); "
        "print({'torch', 'lightning', 'transformers', 'matplotlib', 'cv2'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    assert "--output FILE.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one"], "compare needs two runs or more; type: imgcls compare RUN RUN"),
        (["one", "one/"], "one/ is given twice; leave one out"),
        (["one", "none"], "none: no such folder"),
        (["one", "empty"], "empty is not a run folder"),
        (["one", "group"], "group is not a run folder; did you mean 'group/version_1'?"),
        (["one", "search"], "search is not a run folder; did you mean 'search/trial_0001'?"),
        (["run/export/hf", "one"], "run/export/hf is not a run folder; did you mean 'run'?"),
        (["one", "two", "--output", "one"], "--output one: is a folder"),
        (["one", "two", "--output", "ab.pdf"], "--output ab.pdf: the page is HTML; give a file that ends with .html"),
        (["one", "two", "--jsno", "ab.json"], "imgcls compare: unknown option --jsno; did you mean '--json'?"),
        (["one", "other/model.ckpt"], "other/model.ckpt is not in a run folder"),
    ],
)
def test_errors(
    words: list[str],
    message: str,
    runs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.ckpt").touch()
    for file in ("group/version_0", "group/version_1", "search/trial_0000", "search/trial_0001", "run"):
        (tmp_path / file / "checkpoints").mkdir(parents=True)
        (tmp_path / file / "checkpoints" / "best.ckpt").touch()
        (tmp_path / file / "config.yaml").write_text(file)
    os.utime(tmp_path / "group" / "version_0" / "config.yaml", (1, 1))
    (tmp_path / "search" / "best.yaml").write_text("search/trial_0001")
    (tmp_path / "run" / "export" / "hf").mkdir(parents=True)
    export = {"checkpoint": {"path": "NAME/run/checkpoints/best.ckpt"}}
    (tmp_path / "run" / "export" / "hf" / "export.json").write_text(json.dumps(export))
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *words])
    assert message in capsys.readouterr().err
