"""The help: one screen for a command, all options by ``--help all``, from every way to ask for it."""

import re

import pytest

from imgcls.cli.argv import CHECKPOINT_COMMANDS, COMMANDS
from imgcls.cli.help_pages import PAGES
from imgcls.cli.main import main
from imgcls.cli.schema import keys, used_keys

OWN = {
    "fit": ["--ckpt_path"],
    "validate": ["--ckpt_path", "--tta", "--raw", "--output"],
    "test": ["--ckpt_path", "--tta", "--raw", "--output"],
    "predict": [
        "--ckpt_path",
        "--images",
        "--output",
        "--top_k",
        "--risk",
        "--coverage",
        "--calibrate_on",
        "--embeddings",
        "--overwrite",
        "--resume",
        "--tta",
        "--raw",
    ],
    "tune": [],
    "check": ["--images", "--json", "--html", "--allow"],
    "export": [
        *("--ckpt_path", "--format", "--output", "--images", "--overwrite"),
        *("--batched", "--quantize", "--from_network_input"),
    ],
    "explain": ["--ckpt_path", "--images", "--output", "--target", "--against", "--overwrite"],
}


def shown(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(line.split())
    return capsys.readouterr().out


@pytest.mark.parametrize("line", ["--help", "-h", "help", "", "nothing --help"])
def test_help_lists_the_commands(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = shown(line, capsys)
    assert max(map(len, output.splitlines())) <= 80
    for command in (*COMMANDS, "schema", "completion"):
        assert f"\n  {command} " in output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits_one_screen(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a wider terminal does not make longer lines
    lines = shown(f"{command} --help", capsys).splitlines()
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80
    options = [match[1] for line in lines if (match := re.match(r"  (?:-\w.*, )?(--[\w.]+)", line))]
    general = ["--config", *(["--print_config"] if command not in CHECKPOINT_COMMANDS else []), "--help"]
    start = len(OWN[command]) + len(general)
    assert options[:start] == [*OWN[command], *general]
    assert [f"--{key}" for key in PAGES[command].often if key in keys(command)] == options[start:]
    assert f"imgcls {command} --help all" in "\n".join(lines)
    assert len([line for line in lines if line.startswith(f"  imgcls {command} ")]) == 2


def test_defaults_are_those_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    output = " ".join(shown("fit --help", capsys).split())
    assert "epochs [20]" in output
    assert "pretrained model [microsoft/resnet-18]" in output


@pytest.mark.parametrize("command", COMMANDS)
def test_full_help_has_all_keys_in_groups_with_one_title_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = shown(f"{command} --help all", capsys)
    for key in used_keys(command):
        assert f"\n  --{key} " in output or f" --{key} " in output, key
    titles = re.findall(r"^(\S.*):$", output, re.MULTILINE)
    assert len(titles) == len(set(titles)) >= (1 if command == "explain" else 2)
    assert "--optuna" not in output or command == "tune"
    assert "--ckpt_path" not in output or command not in ("check", "tune")


@pytest.mark.parametrize(
    "line", ["help fit", "fit -h", "fit help", "fit photos --help", "train --help", "help train", "fit --lr 3 --help"]
)
def test_ways_to_the_help_of_a_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(line, capsys) == shown("fit --help", capsys)


@pytest.mark.parametrize("command", ["models", "schema", "completion"])
def test_help_of_a_command_without_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = shown(f"{command} --help", capsys)
    assert output.startswith(f"usage: imgcls {command}")
    assert max(map(len, output.splitlines())) <= 80


def test_output_of_an_evaluation_is_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--output FOLDER" in shown("test --help", capsys)
    assert "--output FILE.csv" in shown("predict --help", capsys)


def test_help_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("help fit all", capsys) == shown("fit --help all", capsys) != shown("fit --help", capsys)


@pytest.mark.parametrize("option", ["--version", "-V", "version"])
def test_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    import imgcls

    assert shown(option, capsys) == f"imgcls {imgcls.__version__}\n"
