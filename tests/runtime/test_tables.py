"""Tables on a terminal and in a file."""

import pytest

from imgcls.runtime.tables import print_table

ROWS = [["class", "reason", "support"], [":cat: [x]", "-", "5"], ["日本", "a long reason " * 20, "1,250"]]


def test_table_in_a_file_has_one_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(ROWS)
    heading, cat, japan = capsys.readouterr().out.splitlines()
    assert heading == f"class      {'reason':280}  support"
    assert cat == f":cat: [x]  {'-':280}        5"
    assert japan == f"日本       {'a long reason ' * 20}    1,250"


def test_names_on_a_terminal_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    print_table(ROWS)
    assert ":cat: [x]" in capsys.readouterr().out
