"""The JSON Schema: in step with the real parser, valid for every shipped and saved configuration, and as strict."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from jsonschema_rs import Draft202012Validator

from imgcls.cli import make_schema, schema
from imgcls.cli.argv import CHECKPOINT_COMMANDS, TRAINER_COMMANDS
from imgcls.cli.checkpoint_commands import parser_of
from imgcls.cli.help import full_help
from imgcls.cli.main import main
from imgcls.cli.parser import ImgclsCLI
from imgcls.cli.validate_config import faults
from imgcls.config.yaml_content import Content, compose_yaml
from tests.helpers.mutated_configs import Mutated, mutated
from tests.helpers.runs import arguments

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
LARGEST = 128_000  # bytes


class _Ready(Exception):
    pass


class _ParserOnly(ImgclsCLI):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _Ready(parser)


@cache
def real_parser() -> Any:
    """The parser of the program, which parses and makes nothing."""
    with pytest.raises(_Ready) as ready:
        _ParserOnly(["fit"])
    return ready.value.args[0]


def printed(*line: str) -> str:
    with redirect_stdout(StringIO()) as output, pytest.raises(SystemExit):
        real_parser().parse_args([*line])
    return output.getvalue()


def test_schema_is_that_of_the_parser() -> None:
    # in a process of its own: subclasses that other tests define would be found
    code = "import json; from imgcls.cli import make_schema; print(json.dumps(make_schema.collect()))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(schema.text()) == json.loads(fresh.stdout), "run python -m imgcls.cli.make_schema"


def test_schema_is_a_schema_and_small() -> None:
    Draft202012Validator(json.loads(schema.text()))  # refuses a wrong schema, and a reference to nothing
    assert make_schema.FILE.stat().st_size <= LARGEST


def options_of(help_text: str) -> dict[str, str]:
    """Dotted key -> what a help says of it, types and layout left out."""
    lines = re.sub(r"\n {10,}", "  ", help_text).splitlines()
    found = (re.match(r"  (?:-\w \S+, )?--([\w.]+).*?  +(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match and not match[1].endswith(".help")}


def text_and_default(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?) ?\((?:type: .*)?default: (.*?)(?:, known subclasses: .*)?\)", text)
    assert match, text
    return match[1], match[2].lower()


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
def test_help_is_that_of_the_parser(command: str) -> None:
    with mock.patch.dict(os.environ, COLUMNS="10000"):
        ours = options_of(full_help(command))
        theirs = options_of(printed(command, "--help"))
        theirs |= options_of(printed(command, "--data.help")) | options_of(printed(command, "--model.help"))
    assert theirs.keys() - ours.keys() <= schema.keys(command).keys() - schema.used_keys(command).keys()
    of_sections = {"model", "data", "trainer", "experiment", "optuna", "optuna.fidelity", "config", "print_config"}
    for key in (ours.keys() & theirs.keys()) - of_sections:
        assert text_and_default(ours[key]) == text_and_default(theirs[key]), key


@pytest.mark.parametrize("command", CHECKPOINT_COMMANDS)
def test_help_is_that_of_its_parser(command: str) -> None:
    with mock.patch.dict(os.environ, COLUMNS="10000"):
        ours, theirs = options_of(full_help(command)), options_of(parser_of(command).format_help())
    assert theirs.keys() - {"config"} == ours.keys() - {"config"}
    for key in theirs.keys() - {"config"}:
        assert text_and_default(ours[key]) == text_and_default(theirs[key]), key


def content(text: str) -> Any:
    """The content of a YAML, with numbers as editors and the parser read them."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node
    return Content(node).value


def found_in(config: Any, tmp_path: Path) -> list[str]:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return [fault.text for fault in faults("fit", [(str(path), compose_yaml(str(path)))], [])]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_is_valid_and_names_the_schema(path: Path) -> None:
    assert faults("fit", [(str(path), compose_yaml(str(path)))], []) == []
    text = path.read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named
    assert (path.parent / named[1]).resolve() == make_schema.FILE
    assert list(Draft202012Validator(json.loads(schema.text())).iter_errors(content(text))) == []


def test_saved_config_is_valid_and_names_the_schema_beside_it(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = arguments(photos, tiny_model, tmp_path, "--trainer.fast_dev_run=false", "--trainer.max_epochs=1")
    main(["fit", *line])
    [config] = tmp_path.rglob("config.yaml")
    first, _, rest = config.read_text(encoding="utf-8").partition("\n")
    assert first.startswith("# yaml-language-server: $schema=")
    copy = config.parent / first.partition("=")[2]
    assert json.loads(copy.read_text(encoding="utf-8")) == json.loads(schema.text())
    assert list(Draft202012Validator(json.loads(schema.text())).iter_errors(content(rest))) == []
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(config), "--trainer.max_epochs=1", "--experiment.custom_folder_name=again"])
    assert list(tmp_path.rglob("again/**/config.yaml"))


def bases() -> Iterator[dict[str, Any]]:
    """Good configurations: the shipped ones, and one with every key."""
    yield from (yaml.safe_load(path.read_text(encoding="utf-8")) for path in CONFIGS)
    yield yaml.safe_load(printed("fit", "--print_config"))


def is_refused(config: dict[str, Any], tmp_path: Path) -> bool:
    path = tmp_path / "mutated.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    try:
        real_parser().instantiate_classes(real_parser().parse_args(["fit", "--config", str(path)]))
    except Exception:
        return True
    return False


def agreement(made: list[Mutated], tmp_path: Path) -> tuple[float, float]:
    """Shares of the configurations where schema and parser agree, and of the misspellings that are put right."""
    differing: list[Mutated] = []
    right: list[bool] = []
    for one in made:
        found = found_in(one.config, tmp_path)
        refused = is_refused(one.config, tmp_path)
        if bool(found) != refused:
            differing.append(one)
            print("schema", "refuses" if found else "accepts", one.kind, one.found, found)
        if refused and one.kind in ("dropped letter", "swapped letters"):
            last = one.key.rpartition(".")[2]
            right.append(any(re.search(rf"did you mean '(\S+\.)?{last}'\?", fault) for fault in found))
            if not right[-1]:
                print("no hint at", one.key, "for", one.found, found)
    agreed, hinted = 1 - len(differing) / len(made), sum(right) / len(right)
    print(f"{len(made)} configurations: agreement {agreed:.3f}, {len(right)} misspellings: right hint {hinted:.3f}")
    return agreed, hinted


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_schema_and_parser_agree_on_mutated_configurations(count: int, tmp_path: Path) -> None:
    agreed, hinted = agreement(mutated(list(bases()), count, seed=18), tmp_path)
    assert agreed >= 0.98
    assert hinted >= 0.95
