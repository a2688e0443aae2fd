"""How the report writes values."""

import pytest

from imgcls.report.page_templates import commands, exact, percent, short, text_of


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("cat/1.jpg", "cat/1.jpg"),
        ("/data/photos/of/many/animals/cats/1.jpg", "…/of/many/animals/cats/1.jpg"),
        ("/data/solar/test/functional/cell0623.png", "…/test/functional/cell0623.png"),
        ("/data/" + "x" * 60 + ".png", "…" + "x" * 25 + ".png"),
    ],
)
def test_the_end_of_a_path_is_shown(path: str, shown: str) -> None:
    assert short(path) == shown


def test_values() -> None:
    assert percent(0.8832) == "88.3&nbsp;%"
    assert percent(None) == "\N{EN DASH}"
    assert exact(0.1 + 0.2) == "0.30000000000000004"
    assert text_of("a\udcff\nb") == r"a\udcff\nb"
    assert text_of(3) == 3
    assert commands("Type `imgcls fit <x>`.") == (
        "Type <code><span>imgcls</span> <span>fit</span> <span>&lt;x&gt;</span></code>."
    )
