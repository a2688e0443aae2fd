"""Links of the documentation lead to files and headings that exist; README is short."""

from pathlib import Path

import pytest

from docs.make_reference import pages
from tests.helpers.markdown import PAGES, ROOT, anchors, links

GENERATED = {ROOT / f"docs/reference/{name}.md": text for name, text in pages().items()}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        text = GENERATED.get(target) or (target.read_text(encoding="utf-8") if target.suffix == ".md" else "")
        if not (target in GENERATED or target.exists()) or (anchor and anchor not in anchors(text)):
            broken.append(link)
    assert broken == []


def test_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8192
