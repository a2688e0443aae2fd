"""Every plain value of a checkpoint replaced by hostile ones: nothing happens that the unharmed one does not do."""

import copy
import io
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import imgcls
from imgcls.cli.main import main
from imgcls.errors import ConfigError
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments

pytestmark = pytest.mark.slow

OURS = ("imgcls", "imgcls_config", "ImageDataModule", "pace", "hyper_parameters", "datamodule_hyper_parameters")
COMMANDS = ("predict", "test", "validate", "fit", "tune", "load_from_checkpoint")
KINDS = (
    ("json class", "json arguments", "yaml class", "command", "module"),
    ("yaml file", "victim", "url"),
    ("huge", "infinite", "negative", "deep", "long"),
    ("mapping", "list of classes", "null", "list", "true"),
)
PARTS = 4
SEED, DRAWN = 17, 300
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "socket.bind")
REMOVING = ("os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "os.truncate", "os.link", "os.symlink", "os.chmod")


def hostile(folder: Path) -> dict[str, Any]:
    """Values that have steered some program: what they touch lies in the folder."""
    call = {"class_path": "os.system", "init_args": {"command": f"touch {folder}/pwned"}}
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    return {
        "json class": json.dumps(call),
        "json arguments": json.dumps({"p": call}),
        "yaml class": f"{{class_path: evil_module.Evil, init_args: {{root: {folder}}}}}",
        "mapping": call,
        "list of classes": [call],
        "yaml file": f"{folder}/evil.yaml",
        "victim": f"{folder}/victim.txt",
        "url": "https://127.0.0.1:9/evil.yaml",
        "command": f"pipe:touch {folder}/pwned",
        "module": "evil_module.Evil",
        "huge": 10**20,
        "infinite": float("inf"),
        "negative": -1,
        "deep": deep,
        "null": None,
        "long": "x" * 100_000,
        "list": [],
        "true": True,
    }


class Place(NamedTuple):
    """Where a value is in a checkpoint: keys, through the text of the configuration, too."""

    keys: tuple[Any, ...]


def places(content: dict[str, Any]) -> Iterator[Place]:
    """Yield every plain value of ours, of hyper-parameters and of callbacks' states, dicts and lists among them."""
    config = json.loads(content["imgcls_config"])
    whole = {key: config if key == "imgcls_config" else content[key] for key in (*OURS, "callbacks")}
    yield Place(("imgcls_config",))  # the text itself
    for key, value in whole.items():
        yield from (Place((key, *keys)) for keys in _below(value))


def _below(value: Any) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield (key,)
        yield from ((key, *more) for more in _below(item))


def harmed(good: bytes, place: Place, value: Any) -> dict[str, Any]:
    """Return a checkpoint's content with another value at a place."""
    content: dict[str, Any] = torch.load(io.BytesIO(good), weights_only=True)
    within_config = place.keys[0] == "imgcls_config" and len(place.keys) > 1
    part: Any = json.loads(content["imgcls_config"]) if within_config else content
    config = part
    keys = place.keys[1:] if within_config else place.keys
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = copy.deepcopy(value)
    if within_config:
        content["imgcls_config"] = json.dumps(config)
    return content


class Watch:
    """What the interpreter does while it is on: imports, files opened for writing or removed, programs started.

    Args:
        allowed: Folders in which files may be written.
    """

    def __init__(self, *allowed: Path) -> None:
        self.allowed = tuple(map(str, allowed))
        self.seen: set[tuple[str, str]] = set()
        self.on = False
        sys.addaudithook(self._hear)  # which cannot be taken back

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "import" and given[0] not in sys.modules:
            self.seen.add((event, str(given[0])))
        elif event == "open" and isinstance(given[0], (str, bytes)) and given[2] & WRITING:
            self._add(event, os.fsdecode(given[0]))
        elif event in REMOVING:
            self._add(event, str(given[0]))
        elif event.startswith(STARTING):
            self.seen.add((event, repr(given)[:200]))

    def _add(self, event: str, path: str) -> None:
        if not os.path.abspath(path).startswith((*self.allowed, "/dev/")):
            self.seen.add((event, path))

    def during(self, action: Callable[[], object]) -> set[tuple[str, str]]:
        """Return what is done in an action."""
        self.seen, self.on = set(), True
        try:
            action()
        finally:
            self.on = False
        return self.seen


class Bench:
    """A checkpoint, and the commands that it is given to.

    Args:
        root: Where all lies.
        capsys: Catches what they say.
    """

    def __init__(self, root: Path, good: bytes, photos: Path, model: Path, watch: Watch) -> None:
        self.root, self.good, self.photos, self.model, self.watch = root, good, photos, model, watch
        self.out = root / "out"

    def line(self, command: str, path: Path) -> list[str]:
        fitting = arguments(self.photos, self.model, self.out, "--trainer.max_epochs=2", "--trainer.logger=false")
        more = {
            "predict": [f"--images={self.photos / 'blue'}", f"--output={self.out}/p.csv", "--overwrite"],
            "validate": [],
            "test": [f"--data.dataset_classes.test={self.photos}", "--data.on_leak=warn"],
            "fit": fitting,
            "tune": [*fitting, "--optuna.n_trials=1", '--optuna.search_spaces={"data.batch_size": {"choices": [8]}}'],
        }
        return [command, f"--ckpt_path={path}", "--trainer.precision=32", "--data.num_workers=0", *more[command]]

    def code(self, command: str, path: Path) -> int:
        """Run a command in this process; return its exit code."""
        try:
            if command == "load_from_checkpoint":
                imgcls.ImageClassifier.load_from_checkpoint(path)
            else:
                main(self.line(command, path))
        except ConfigError:
            return 2
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
        return 0

    def snapshot(self) -> dict[str, bytes]:
        """What lies beside the run folder."""
        files = (path for path in self.root.rglob("*") if path.is_file() and self.out not in path.parents)
        return {str(path): path.read_bytes() for path in files if path.suffix != ".ckpt"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("fuzz")
    photos = write_class_folders(root / "photos", 5)
    model = root / "tiny"
    model.mkdir()
    text = Path(__file__, "../../../configs/tiny-resnet/config.json").resolve().read_text(encoding="utf-8")
    (model / "config.json").write_text(
        text.replace("[32, 64, 128]", "[8, 8]")
        .replace("[1, 1, 1]", "[1, 1]")
        .replace('"embedding_size": 32', '"embedding_size": 8')
    )
    (root / "evil_module.py").write_text(f"open({str(root / 'pwned')!r}, 'w')\nclass Evil: pass\n")
    (root / "evil.yaml").write_text("class_path: evil_module.Evil\n")
    (root / "victim.txt").write_text("mine")
    before = os.getcwd()
    os.chdir(root)
    metrics = {"accuracy": {"class_path": "torchmetrics.Accuracy", "init_args": {"average": "micro"}}}
    logger = {"class_path": "imgcls.MetricsLogger", "init_args": {"metrics": metrics}}
    callbacks = json.dumps([logger, {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}])
    main(
        ["fit", *arguments(photos, model, root / "made", "--trainer.max_epochs=1", f"--trainer.callbacks={callbacks}")]
    )
    good = (root / "made/run/version_0/checkpoints/last.ckpt").read_bytes()
    cache = Path(os.environ["IMGCLS_CACHE"])
    bench = Bench(root, good, photos, model, Watch(root / "out", cache))
    yield bench
    os.chdir(before)


def usual(bench: Bench) -> set[tuple[str, str]]:
    """What the unharmed checkpoint does, under all commands, the second time: the first imports more."""
    path = bench.root / "x.ckpt"
    path.write_bytes(bench.good)
    seen: set[tuple[str, str]] = set()
    for _ in range(2):
        for command in COMMANDS:
            seen |= bench.watch.during(partial(bench.code, command, path))
    return seen


def attack(bench: Bench, place: Place, name: str, command: str, capsys: pytest.CaptureFixture[str]) -> str | None:
    """Run a command on a harmed checkpoint; return what is wrong with what it did, None if nothing is."""
    path = bench.root / "x.ckpt"
    torch.save(harmed(bench.good, place, hostile(bench.root)[name]), path)
    codes: list[int] = []
    seen = bench.watch.during(lambda: codes.append(bench.code(command, path)))
    said = capsys.readouterr()
    what = f"{'.'.join(map(str, place.keys))} = {name}, {command}: "
    if codes[0] not in {0, 2}:
        return f"{what}exit {codes[0]}: {said.err.strip().splitlines()[-1:]}"
    if "Traceback" in said.err or "weights_only" in said.err:
        return f"{what}{said.err[-300:]}"
    if strange := {event for event in seen if not event[1].startswith(str(bench.out))}:
        return f"{what}{sorted(strange)[:3]}"
    return None


def choices(bench: Bench) -> list[tuple[Place, str]]:
    """Return all places with one value of each kind, drawn; some thousands, all with all, would take an hour."""
    content = torch.load(io.BytesIO(bench.good), weights_only=True)
    drawn = random.Random(SEED)
    return [(place, drawn.choice(names)) for place in places(content) for names in KINDS]


def report(faults: list[str | None]) -> None:
    found = [fault for fault in faults if fault]
    assert not found, f"{len(found)} of {len(faults)}:\n" + "\n".join(found[:40])


@pytest.mark.parametrize("part", range(PARTS))
def test_each_value_under_one_command(part: int, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    usual(bench)
    before = bench.snapshot()
    drawn = random.Random(SEED)
    each = [(*choice, drawn.choice(("predict", "validate"))) for choice in choices(bench)]
    report([attack(bench, *one, capsys) for one in each[part::PARTS]])
    assert bench.snapshot() == before
    assert not (bench.root / "pwned").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_drawn_values_under_every_command(command: str, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    usual(bench)
    before = bench.snapshot()
    drawn = random.Random(SEED).sample(choices(bench), DRAWN)
    report([attack(bench, place, name, command, capsys) for place, name in drawn])
    assert bench.snapshot() == before
    assert not (bench.root / "pwned").exists()
