"""What is in a page of HTML."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Numbers, anchors, links and texts of a page.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.numbers: dict[str, float] = {}
        """``data-name`` -> ``data-value``; the page may show a number in several places."""
        self.idents: set[str] = set()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._tag = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag with its attributes."""
        found = {name: value or "" for name, value in attrs}
        self._tag = tag
        self.tags.append((tag, found))
        if "id" in found:
            assert found["id"] not in self.idents
            self.idents.add(found["id"])
        if "data-name" in found:
            value = float(found["data-value"])
            assert self.numbers.setdefault(found["data-name"], value) == value
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        """Forget a tag."""
        self._tag = ""

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if self._tag == "script":
            self.scripts[-1] += data
        elif self._tag != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What the page says, in one line."""
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute, in the order of the page."""
        return [found[name] for _, found in self.tags if name in found]
