"""``imgcls init``: the configuration that it writes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from imgcls.cli.main import main
from imgcls.init.config import config_text
from imgcls.init.folder import PhotoFolder, read_folder
from imgcls.init.machine import Machine
from tests.helpers.runs import fails

CPU = Machine(2)
GPU = Machine(16, "NVIDIA A10", 24.0)


def folder_of(counts: dict[str, int], size: tuple[int, int] = (640, 480), unreadable: int = 0) -> PhotoFolder:
    return PhotoFolder({"train": "photos"}, counts, {"train": sum(counts.values())}, [size], unreadable, None)


def loaded(folder: PhotoFolder, machine: Machine = CPU, model: str | None = None) -> dict[str, dict[str, object]]:
    """The arguments of each section."""
    config = yaml.safe_load(config_text("photos", folder, machine, model))
    return {"trainer": config["trainer"]} | {name: config[name]["init_args"] for name in ("model", "data")}


def write(root: Path, *names: str, size: tuple[int, int] = (64, 48)) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size[1], size[0], 3), number % 256, np.uint8)).save(path)
    return root


def test_the_configuration_trains_as_it_is(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "all", tmp_path / "new" / "c.yaml"
    shutil.copytree(photos, root / "train")
    shutil.copytree(test_photos, root / "Test")
    (root / "train" / "red" / "broken.jpg").write_bytes(b"no image")
    main(["init", str(root), f"--output={out}", "--model", str(tiny_model)])
    shown = capsys.readouterr().out
    assert "3 classes; images: 61 train, 18 test; typically" in shown
    assert shown.splitlines()[-1] == f"imgcls fit --config {out}"
    text = out.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=")
    assert "# 3 classes, 61 training images: blue 20, green 20, red 21." in text
    assert len(text.splitlines()) < 60
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 120
    more = [
        "--model.pretrained=false",
        "--trainer.max_epochs=1",
        "--data.num_workers=0",
        f"--experiment.output_dir={tmp_path}",
    ]
    main(["fit", f"--config={out}", *more])
    assert len(list(tmp_path.glob("*/version_0/checkpoints/best.ckpt"))) == 1
    code, error = fails(["init", str(root), f"--output={out}"], capsys)
    assert code == 2
    assert f"{out} exists; add --overwrite to replace it" in error
    main(["init", str(root), f"--output={out}", "--overwrite"])
    assert "model_name: microsoft/resnet-18" in out.read_text(encoding="utf-8")


def test_model_and_batches_follow_machine_and_folder() -> None:
    small, large = folder_of({"a": 40, "b": 40}), folder_of({"a": 4000, "b": 4000})
    text = config_text("photos", small, CPU)
    assert "# no class weights: the classes have about equal numbers of images\n" in text
    assert "max_epochs: 40 # 64 images are few, so that they are seen often; ends after 10 epochs without" in text
    assert loaded(large)["model"]["model_name"] == "microsoft/resnet-18"
    assert loaded(large, GPU)["model"]["model_name"] == "facebook/convnext-tiny-224"
    assert [loaded(large)["data"]["batch_size"], loaded(large, GPU)["data"]["batch_size"]] == [32, 64]
    assert loaded(small, GPU)["data"]["batch_size"] == 8
    assert [loaded(each)["trainer"]["max_epochs"] for each in (small, large)] == [40, 20]
    assert loaded(small, model="own/net")["model"]["model_name"] == "own/net"


def test_rare_classes_tiny_images_and_broken_ones_are_provided_for() -> None:
    assert "loss_config" not in loaded(folder_of({"a": 90, "b": 10}))["model"]
    assert loaded(folder_of({"a": 100, "b": 10}))["model"]["loss_config"] == {"class_weights": "auto"}
    sizes = {(28, 28): 96, (40, 60): 96, (90, 90): 160, (640, 480): None, (2000, 1500): None, (900, 300): None}
    assert {size: loaded(folder_of({"a": 9, "b": 9}, size))["data"]["image_size"] for size in sizes} == sizes
    assert "# image_size: 320 #" in config_text("p", folder_of({"a": 9, "b": 9}, (2000, 1500)), CPU)
    assert "# image_size: [160, 320] #" in config_text("p", folder_of({"a": 9, "b": 9}, (900, 300)), CPU)
    broken = loaded(folder_of({"a": 9, "b": 9}, unreadable=1))["data"]
    assert (broken["on_bad_image"], broken["max_bad_fraction"]) == ("skip", 1)


@pytest.mark.parametrize(
    ("names", "regex", "count"),
    [
        ([f"{label}/p{n}_{k:03d}.png" for label in "ab" for n in range(6) for k in range(3)], True, 6),
        ([f"{label}/{label}{n}/{k}.png" for label in "ab" for n in range(4) for k in range(3)], True, 8),
        ([f"{label}/IMG_{n:04d}.png" for label in "ab" for n in range(20)], False, 0),
        ([f"{label}/{label}_{n}.png" for label in "ab" for n in range(20)], False, 0),
        ([f"{label}/{label}x{n}_1.png" for label in "ab" for n in range(20)], False, 0),
    ],
)
def test_groups_are_guessed_from_names(names: list[str], regex: bool, count: int, tmp_path: Path) -> None:
    found = read_folder(str(write(tmp_path, *names)))
    text = config_text("photos", found, CPU)
    assert ("# group_regex: " in text) == regex
    assert (found.groups.count if found.groups else 0) == count


def test_a_guessed_group_works_when_its_comment_is_removed(tiny_model: Path, tmp_path: Path) -> None:
    root = write(tmp_path / "p", *(f"{label}/p{n}_{k}.png" for label in "ab" for n in range(6) for k in range(3)))
    file = tmp_path / "c.yaml"
    main(["init", str(root), f"--output={file}", f"--model={tiny_model}"])
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("# group_regex:", "group_regex:"), encoding="utf-8")
    main(["check", f"--config={file}", "--allow", "leakage"])
    assert (
        yaml.safe_load(file.read_text())["data"]["init_args"]["group_regex"] == r"([^/]+?)[ _-]+[A-Za-z]{0,6}\d+\.\w+$"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is not a folder; type: imgcls init FOLDER"),
        (["x.png"], "contains images but no class folders"),
        (["a/x.png"], "only one class folder with images in"),
        (["train/a/x.png", "train/b/x.png"], "did you mean"),
    ],
)
def test_a_folder_without_classes_is_refused(
    names: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "p", *names)
    code, error = fails(["init", str(tmp_path / "p"), f"--output={tmp_path}/c.yaml"], capsys)
    assert code == 2
    assert message in error
    assert not (tmp_path / "c.yaml").exists()
