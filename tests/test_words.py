"""Words of the field: phrases and names that package and documentation do not use, with what they say instead."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PHRASES = {  # phrase -> instead
    r"(goes|go|going|went) on": "resume, continue",
    r"several labels": "multi-label",
    r"anew": "again, recomputed",
    r"(is|are) (said|told)": "is logged, is reported",
    r"lies|bears|meets?|doubt(s|ed)?": "is in, has, checks, warns; suspected",
    r"nobody|none is kept": "unused, no checkpoint is kept",
    r"for ever": "forever, without end",
    r"\"chosen: ": "defaults:",
    r"always (answering|answers|saying)|not answered": "predicts, abstains",
    r"surest|least sure|how sure": "most confident, least confident, how reliable the confidence is",
    r"[Pp]romise[sd]?": "guarantee",
    r"(given|gives?) away": "predicts the class by itself, a shortcut",
    r"pictured": "image content",
    r"[Ff]ound by mistake|[Rr]ightly absent": "false positives, true negatives",
    r"took no part": "not used in training or selection",
    r"tensor passes": "layer has a usable spatial grid",
    r"Of two": "With two",
}
NOUNS = r"chance|ledger|survey|anatomy|partition|crew|room"
FILES = sorted((ROOT / "imgcls").rglob("*.py"))
TEMPLATES = sorted((ROOT / "imgcls").rglob("*.jinja"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_are_gone(phrase: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in [*FILES, *TEMPLATES, *PAGES]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(rf"(?<!\w)({phrase})(?!\w)", line)
    ]
    assert found == [], f"write: {PHRASES[phrase]}"


def test_nouns_name_no_file_class_or_function() -> None:
    names = [path.stem for path in FILES]
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in FILES:
        names += [
            node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)
        ]
    words = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_") for name in names}
    assert [name for name, parts in words.items() if any(re.fullmatch(NOUNS, part) for part in parts)] == []
