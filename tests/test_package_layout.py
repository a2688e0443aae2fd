"""The rooms of the house: who may import whom."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imgcls"

# room, a folder or a file -> rooms that it may import
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "config": {"errors"},
    "images": {"errors"},
    "runtime": {"errors"},
    "metrics": {"config", "errors"},
    "statistics": set(),
    "compare": {"checkpoints", "config", "errors", "report", "results", "runtime", "statistics"},
    "datasets": {"errors", "images", "runtime"},
    "data": {"config", "datasets", "errors", "images", "runtime", "types"},
    "models": {"callbacks", "checkpoints", "config", "errors", "metrics", "runtime", "types"},
    "checkpoints": {"errors", "runtime"},
    "predictions": {"datasets", "errors", "runtime"},
    "results": {"checkpoints", "datasets", "errors"},
    "report": {"checkpoints", "config", "datasets", "errors", "results", "runtime", "statistics"},
    "callbacks": {
        "checkpoints",
        "config",
        "data",
        "datasets",
        "errors",
        "metrics",
        "predictions",
        "runtime",
        "types",
    },
    "init": {"datasets", "errors", "images", "runtime"},
    "check": {"data", "datasets", "errors", "images", "runtime"},
    "tune": {"callbacks", "checkpoints", "config", "errors", "results", "runtime", "statistics"},
    "explain": {"errors", "images", "models", "types"},
    "commands": {
        "callbacks",
        "check",
        "checkpoints",
        "config",
        "data",
        "datasets",
        "errors",
        "explain",
        "metrics",
        "models",
        "predictions",
        "report",
        "results",
        "runtime",
        "statistics",
        "tune",
        "types",
    },
    "inference": {
        "callbacks",
        "checkpoints",
        "commands",
        "config",
        "data",
        "datasets",
        "errors",
        "explain",
        "images",
        "models",
        "predictions",
        "runtime",
        "types",
    },
    "export": {
        "checkpoints",
        "commands",
        "config",
        "data",
        "datasets",
        "errors",
        "images",
        "inference",
        "models",
        "results",
        "runtime",
        "statistics",
        "types",
    },
    "cli": {
        "callbacks",
        "checkpoints",
        "commands",
        "compare",
        "config",
        "data",
        "datasets",
        "errors",
        "export",
        "images",
        "inference",
        "init",
        "models",
        "report",
        "runtime",
    },
    "api": {
        "checkpoints",
        "cli",
        "commands",
        "config",
        "errors",
        "inference",
        "runtime",
    },
    "__main__": {"cli"},
    "__init__": {"runtime"},
}
INSTANT = [
    "__init__",
    "cli/__init__",
    "cli/argv",
    "cli/completion",
    "cli/help",
    "cli/help_pages",
    "cli/main",
    "cli/models",
    "cli/required_inputs",
    "cli/precheck",
    "cli/schema",
    "cli/positional_arguments",
    "cli/suggest",
    "cli/validate_config",
    "cli/violations",
    "config/__init__",
    "config/yaml_content",
    "errors",
    "runtime/__init__",
    "runtime/signals",
]
HEAVY = {"torch", "lightning", "transformers", "albumentations", "torchmetrics", "numpy", "pandas", "sklearn", "cv2"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    hidden = {id(child) for block in for_types for child in ast.walk(block)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= names & MODULES or {str(node.module)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_one_way(path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("imgcls.")}
    assert ours - {room(path)} <= ARROWS[room(path)]


def test_every_room_is_in_the_table() -> None:
    assert {room(path) for path in FILES} == set(ARROWS)


def test_halves_do_not_meet() -> None:
    assert "models" not in ARROWS["data"]
    assert "data" not in ARROWS["models"]


def test_rooms_and_files_make_no_circle() -> None:
    list(TopologicalSorter(ARROWS).static_order())
    list(TopologicalSorter({module(path): imported(path) for path in FILES}).static_order())


@pytest.mark.parametrize("name", INSTANT)
def test_instant_answers_import_nothing_heavy(name: str) -> None:
    assert {module.split(".")[0] for module in imported(PACKAGE / f"{name}.py")} & HEAVY == set()


def test_no_function_is_longer_than_fifty_lines() -> None:
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 50
    ]
    assert long == []
