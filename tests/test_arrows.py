"""The rooms of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imgcls"

SHARED = {"batch", "cache_folder", "chance", "cores", "errors", "files", "plain", "progress", "specs"}
DATA = {
    "augment",
    "bad_images",
    "batches",
    "cache",
    "data_config",
    "datamodule",
    "datasets",
    "fast",
    "feature_store",
    "features",
    "formats",
    "headers",
    "hold_out",
    "images",
    "labels",
    "ledger",
    "partition",
    "pipelines",
    "presets",
    "recorded",
    "sampling",
    "splits",
    "stratify",
    "streaming",
    "survey",
    "workers",
}
MODEL = {
    "anatomy",
    "backbone",
    "classifier",
    "compilation",
    "cut",
    "cut_search",
    "hub",
    "inference",
    "losses",
    "memory",
    "network",
    "optim",
    "preprocessing",
    "recording",
    "schedules",
    "thresholds",
    "unfreezing",
    "values",
    "views",
}
INSTANT = {"entry", "precheck", "arguments"}

# room -> rooms that it may import; a room of several files may import within itself only as listed
ARROWS: dict[str, set[str]] = {
    "batch": set(),
    "chance": set(),
    "cores": set(),
    "errors": set(),
    "interrupts": set(),
    "specs": {"errors"},
    "headers": set(),
    "formats": {"headers"},
    "fast": {"headers"},
    "images": {"errors", "fast", "formats", "headers"},
    "labels": set(),
    "datasets": {"cache_folder", "errors", "files", "images", "labels", "progress"},
    "ledger": set(),
    "progress": set(),
    "cache_folder": set(),
    "survey": {"cache_folder", "datasets", "errors", "images", "ledger", "progress"},
    "splits": {"datasets", "errors", "images", "labels", "survey"},
    "stratify": set(),
    "hold_out": {"errors", "splits", "stratify"},
    "recorded": {"errors", "splits"},
    "bad_images": {"errors"},
    "partition": {"bad_images", "datasets", "errors", "hold_out", "recorded", "splits", "survey"},
    "workers": {"errors"},
    "augment": {"batch", "errors", "images", "specs"},
    "presets": {"augment", "batch", "specs"},
    "sampling": {"batch", "chance", "workers"},
    "batches": {"augment", "batch", "errors", "images", "sampling", "splits", "workers"},
    "streaming": {"augment", "batch", "batches", "chance", "datasets", "errors", "sampling", "workers"},
    "cache": {"augment", "batches", "datasets", "errors", "images", "progress", "splits", "workers"},
    "feature_store": set(),
    "features": {"batch", "batches", "chance", "feature_store", "progress", "sampling", "splits"},
    "data_config": {"datasets", "errors", "presets"},
    "pipelines": {"augment", "batch", "data_config", "errors", "images", "presets", "specs"},
    "datamodule": {
        "augment",
        "bad_images",
        "batch",
        "batches",
        "cache",
        "cache_folder",
        "chance",
        "cores",
        "data_config",
        "datasets",
        "errors",
        "features",
        "hold_out",
        "partition",
        "pipelines",
        "plain",
        "sampling",
        "splits",
        "streaming",
        "workers",
    },
    "anatomy": {"errors"},
    "hub": {"errors"},
    "preprocessing": {"anatomy", "batch", "errors", "hub"},
    "network": {"errors", "hub", "preprocessing"},
    "recording": set(),
    "unfreezing": {"errors"},
    "cut": {"anatomy", "recording"},
    "cut_search": {"anatomy", "cut", "recording"},
    "backbone": {"anatomy", "cut", "cut_search", "errors"},
    "values": {"errors"},
    "optim": {"errors", "values"},
    "schedules": {"errors", "values"},
    "losses": {"errors", "values"},
    "memory": set(),
    "views": set(),
    "plain": set(),
    "thresholds": {"errors"},
    "inference": {
        "backbone",
        "batch",
        "errors",
        "hub",
        "memory",
        "network",
        "plain",
        "preprocessing",
        "thresholds",
        "views",
    },
    "classifier": {
        "batch",
        "chance",
        "compilation",
        "errors",
        "inference",
        "losses",
        "optim",
        "schedules",
        "thresholds",
        "unfreezing",
    },
    "files": set(),
    "checkpoint": {"errors", "files"},
    "run_folder": {"checkpoint", "errors"},
    "config": {"errors"},
    "dotted": {"errors"},
    "report": {"files"},
    "quiet": set(),
    "recover": {"checkpoint", "errors"},
    "trainer": {"callbacks", "checkpoint", "errors"},
    "callbacks": {"datamodule", "errors", "files", "labels", "processes", "run_folder", "specs"},
    "defaults": {"callbacks", "errors", "run_folder"},
    "processes": set(),
    "compilation": {"errors"},
    "arguments": {"errors"},
    "precheck": {"arguments", "errors"},
    "entry": {"errors", "interrupts", "precheck", "program"},
    "explain": {"errors"},
    "program": {"cli", "errors", "explain", "quiet", "trainer"},
    "answers": {"arguments", "callbacks", "cli", "datasets"},
    "start": {"checkpoint", "errors", "run_folder"},
    "tune": {
        "callbacks",
        "chance",
        "checkpoint",
        "commands",
        "config",
        "cores",
        "defaults",
        "dotted",
        "errors",
        "explain",
        "files",
        "interrupts",
        "report",
        "run_folder",
        "trainer",
    },
    "check": {
        "batches",
        "callbacks",
        "commands",
        "datamodule",
        "datasets",
        "errors",
        "files",
        "images",
        "labels",
        "progress",
        "report",
        "splits",
        "workers",
    },
    "finders": {"callbacks", "checkpoint", "classifier", "datamodule", "errors", "optim", "trainer"},
    "commands": {
        "callbacks",
        "checkpoint",
        "classifier",
        "config",
        "datamodule",
        "datasets",
        "defaults",
        "errors",
        "finders",
        "recover",
        "report",
        "run_folder",
        "start",
        "trainer",
    },
    "fitting": {
        "callbacks",
        "checkpoint",
        "commands",
        "defaults",
        "errors",
        "finders",
        "report",
        "run_folder",
        "start",
        "trainer",
    },
    "cli": {
        "arguments",
        "check",
        "classifier",
        "commands",
        "config",
        "datamodule",
        "dotted",
        "errors",
        "finders",
        "fitting",
        "hub",
        "processes",
        "recover",
        "run_folder",
        "start",
        "trainer",
        "tune",
        "views",
    },
    "__main__": {"entry"},
    "__init__": set(),
}
HEAVY = {"torch", "lightning", "transformers", "albumentations", "torchmetrics", "numpy", "pandas", "sklearn", "cv2"}
FILES = sorted(PACKAGE.rglob("*.py"))


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
        elif isinstance(node, ast.ImportFrom) and node.module == "imgcls":
            found |= {f"imgcls.{name.name}" for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_one_way(path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("imgcls.")}
    assert ours - {room(path)} <= ARROWS[room(path)]


def test_every_room_is_in_the_table() -> None:
    assert {room(path) for path in FILES} == set(ARROWS)


def test_halves_do_not_meet() -> None:
    for one, other in ((DATA, MODEL), (MODEL, DATA)):
        assert {name: ARROWS[name] & other for name in one if ARROWS[name] & other} == {}
    assert set.union(*(ARROWS[name] for name in DATA)) <= DATA | SHARED
    assert set.union(*(ARROWS[name] for name in MODEL)) <= MODEL | SHARED


def test_arrows_make_no_circle() -> None:
    left = {name: set(targets) for name, targets in ARROWS.items()}
    while free := [name for name, targets in left.items() if not targets]:
        left = {name: targets - set(free) for name, targets in left.items() if name not in free}
    assert left == {}


@pytest.mark.parametrize("name", sorted(INSTANT | {"__init__", "errors"}))
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
