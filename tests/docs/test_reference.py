"""The key reference describes every key of the configuration."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from docs.make_reference import pages
from imgcls.cli.main import main
from tests.helpers.markdown import anchors


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_every_printed_key_is_described(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    described = {anchor for page in pages().values() for anchor in anchors(page)}
    missing = [key for key in leaves(printed) if key not in described and f"{command}.{key}" not in described]
    assert missing == []


def leaves(value: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, inner in value.items():
        if name == "class_path":
            continue
        key = before if name == "init_args" else f"{before}.{name}".strip(".")
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, key)
        else:
            yield key


def test_key_has_type_default_and_text() -> None:
    lines = pages()["data"].splitlines()
    start = lines.index("### `data.batch_size` { #data.batch_size }")
    assert lines[start + 2] == "`int`; default `32`"
    assert "Images per batch" in lines[start + 4]
