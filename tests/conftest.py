"""Small real files, and no network."""

import logging
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["IMGCLS_CACHE"] = tempfile.mkdtemp(prefix="imgcls-tests-")  # not the user's
# tiny models on shared cores: a second thread mostly waits for the first, four times as long in all
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def write_class_folders(root: Path, images: int, seed: int = 0) -> Path:
    """Noisy pictures of three colours, of differing sizes, one folder a colour; told apart in an epoch or two."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(images):
            height, width = generator.integers(36, 60, 2)
            pixels = generator.normal(colour, 40, (height, width, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


def pytest_sessionfinish() -> None:
    """Remove what the tests have cached."""
    shutil.rmtree(os.environ["IMGCLS_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of 20 small images; to be read only."""
    return write_class_folders(tmp_path_factory.mktemp("photos") / "train", 20)


@pytest.fixture(scope="session")
def test_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of 6 other images; to be read only."""
    return write_class_folders(tmp_path_factory.mktemp("photos") / "test", 6, seed=1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config.json of a small residual network, 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    text = Path(__file__, "../../configs/tiny-resnet/config.json").resolve().read_text(encoding="utf-8")
    (folder / "config.json").write_text(
        text.replace("[32, 64, 128]", "[8, 16, 16]").replace('"embedding_size": 32', '"embedding_size": 8')
    )
    return folder


@pytest.fixture(params=[300_000])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 300 kB, or of another size; where none may be mounted, a process may write no more to a file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount") or "false", shutil.which("umount") or "false"
    if subprocess.run([mount, "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", folder], check=False).returncode:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.param, before[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    else:
        yield folder
        subprocess.run([umount, "-l", folder], check=True)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What imgcls logs, also where a run has set its logger up before."""
    logger = logging.getLogger("imgcls")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, "imgcls")
    return caplog
