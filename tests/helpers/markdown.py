"""Code blocks, links and anchors of Markdown pages."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.M | re.S)
_NOT_RUN = re.compile(r"<!-- not run: .+ -->\n\Z")
_FILE = re.compile(r"# (\w[\w./-]*\.(?:yaml|py))\n")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+?)(?: \{ #(\S+) \})?$", re.M)


@dataclass(frozen=True)
class Block:
    """A code block: its language, text, line, the file that it is, and whether a comment above it says "not run"."""

    language: str
    text: str
    line: int
    file: str | None
    is_run: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        content = re.sub(rf"^{match[1]}", "", match[3], flags=re.M)
        file = _FILE.match(content)
        before = text[: match.start()]
        name = file[1] if file else None
        found.append(Block(match[2], content, before.count("\n") + 1, name, not _NOT_RUN.search(before)))
    return found


def links(text: str) -> list[str]:
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of headings: given ones, and those that GitHub and Python-Markdown make of words."""
    found = set()
    for words, given in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"[^\w\s-]", "", words.lower()).strip()
        found |= {given} if given else {re.sub(r"[-\s]+", "-", plain), plain.replace(" ", "-")}
    return found
