"""Importing imgcls and reading an image leave the process-wide state of its dependencies unchanged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SNAPSHOT = """
import importlib, inspect, json, logging, signal, sys, threading, warnings

def name(value):
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"

def functions(module):
    return {key: name(value) for key, value in vars(module).items() if inspect.isfunction(value)}

def snapshot():
    import cv2, torch, yaml
    from lightning.fabric.strategies.launchers import subprocess_script as fabric_launcher
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies.launchers import subprocess_script as launcher
    from PIL import Image
    loggers = {
        key: [log.level, log.disabled, log.propagate, list(map(name, log.handlers)), list(map(name, log.filters))]
        for key, log in [("root", logging.root), *logging.root.manager.loggerDict.items()]
        if isinstance(log, logging.Logger) and not key.startswith("imgcls")
    }
    return {
        "yaml": [yaml.safe_dump({"a": "1e3"}), yaml.dump({"a": "1e3"}), str(yaml.safe_load("a: 1e3"))],
        "Pillow": Image.MAX_IMAGE_PIXELS,
        "Trainer": {key: str(value) for key, value in Trainer.__init__.__annotations__.items()},
        "launchers": [functions(launcher), functions(fabric_launcher)],
        "loggers": loggers,
        "warnings": [list(map(str, warnings.filters)), name(warnings.formatwarning), name(warnings.showwarning)],
        "signals": {str(key): str(signal.getsignal(key)) for key in signal.valid_signals()},
        "hooks": list(map(name, (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook))),
        "threads": [cv2.getNumThreads(), torch.get_num_threads(), threading.active_count()],
        "torch": [torch.is_grad_enabled(), str(torch.get_default_dtype()), torch.get_float32_matmul_precision()],
    }
"""
WITH_IMGCLS = """
import pkgutil
import imgcls
for module in pkgutil.walk_packages(imgcls.__path__, "imgcls."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for public in imgcls.__all__:
    getattr(imgcls, public)
from imgcls.images import load_image
load_image(sys.argv[1], max_pixels=2**31)
others = [module for module in sys.modules if module.split(".")[0] != "imgcls"]
print(json.dumps([others, snapshot()]))
"""
WITHOUT_IMGCLS = """
for module in json.load(sys.stdin):
    try:
        importlib.import_module(module)
    except ImportError:  # an alias that its package has put into sys.modules
        pass
assert not any(module.split(".")[0] == "imgcls" for module in sys.modules)
print(json.dumps([[], snapshot()]))
"""


def snapshot(code: str, image: Path, given: str = "") -> tuple[list[str], dict[str, Any]]:
    command = [sys.executable, "-c", SNAPSHOT + code, str(image)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    modules, found = json.loads(done.stdout.splitlines()[-1])
    return modules, found


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state after importing imgcls and reading an image, and after importing the same dependencies alone."""
    image = tmp_path_factory.mktemp("image") / "image.tiff"  # decoded by Pillow
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(image)
    modules, ours = snapshot(WITH_IMGCLS, image)
    return ours, snapshot(WITHOUT_IMGCLS, image, json.dumps(modules))[1]


@pytest.mark.parametrize(
    "kind",
    ["yaml", "Pillow", "Trainer", "launchers", "loggers", "warnings", "signals", "hooks", "threads", "torch"],
)
def test_import_changes_nothing_of(kind: str, snapshots: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ours, theirs = snapshots
    assert ours[kind] == theirs[kind]
