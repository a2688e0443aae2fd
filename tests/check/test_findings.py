"""The look at the data: every planted fault is found, and nothing else."""

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from imgcls.cli.main import main
from imgcls.images import Pixels
from tests.helpers.own import Squares
from tests.helpers.real_data import write_elpv
from tests.helpers.runs import fails

Check = Callable[..., dict[str, Any]]
SIDE, STEP = 213, 107


@pytest.fixture(scope="module")
def tiles() -> list[Pixels]:
    """Parts of two real photos; neighbours share half of what they show, and are no copies of each other."""
    parts = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        for top in range(0, photo.shape[0] - SIDE + 1, STEP):
            parts += [photo[top : top + SIDE, left : left + SIDE] for left in range(0, photo.shape[1] - SIDE + 1, STEP)]
    return parts


def save(pixels: Pixels, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def jpeg(pixels: Pixels, quality: int = 60) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def resized(pixels: Pixels, share: float = 0.8) -> Pixels:
    image = Image.fromarray(pixels)
    return np.array(image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS))


def cropped(pixels: Pixels, share: float = 0.02) -> Pixels:
    cut = round(len(pixels) * share)
    return pixels[cut:, cut:]


def brighter(pixels: Pixels, gain: float = 1.1) -> Pixels:
    return np.asarray(np.clip(pixels * gain, 0, 255).round(), dtype=np.uint8)


def clean_folders(root: Path, tiles: list[Pixels]) -> Path:
    """Train, validation and test folders of two classes, without a fault; 12 + 4 + 4 images."""
    rest = iter(tiles)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                save(next(rest), root / split / name / f"{number}.png")
    return root


@pytest.fixture
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Runs the command with all faults allowed; returns what it writes for machines."""
    file = tmp_path_factory.mktemp("report") / "found.json"

    def run(*line: str | Path) -> dict[str, Any]:
        main(["check", *map(str, line), f"--json={file}", "--allow", "leakage", "unreadable"])
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    return run


def names(group: dict[str, Any], root: Path) -> list[str]:
    return sorted(os.path.relpath(image["path"], root) for image in group["images"])


def groups(found: list[dict[str, Any]], root: Path) -> list[tuple[Any, ...]]:
    """What is said of each group: kind, leak, two labels, files."""
    return sorted((group.get("kind"), group["leak"], group["two_labels"], *names(group, root)) for group in found)


# -- planted faults


def plant(root: Path) -> None:
    """One fault of each kind."""
    train, validation, test = root / "train", root / "val", root / "test"
    whole = (train / "cat/0.png").read_bytes()
    (train / "cat/truncated.png").write_bytes(whole[: len(whole) // 2])
    (validation / "dog/text.jpg").write_text("no image")
    shutil.copy(train / "cat/1.png", train / "cat/again.png")
    shutil.copy(train / "dog/0.png", test / "dog/leaked.png")
    save(np.array(Image.open(train / "dog/1.png")), train / "dog/other.bmp")
    save(np.array(Image.open(train / "cat/2.png")), validation / "cat/near.jpg", quality=60)
    shutil.copy(train / "dog/3.png", train / "cat/twice.png")
    shutil.rmtree(test / "cat")
    (train / "yak").mkdir()
    save(np.full((60, 40, 3), 128, np.uint8), train / "cat/even.png")
    save(np.array(Image.open(train / "cat/3.png"))[:20, :90], train / "cat/long.png")


def test_check_finds_every_planted_fault_and_nothing_else(
    tmp_path: Path, tiles: list[Pixels], check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(clean_folders(tmp_path, tiles))
    found = check("--images", tmp_path)
    assert {os.path.relpath(bad["path"], tmp_path): bad["reason"] for bad in found["unreadable"]} == {
        "train/cat/truncated.png": "is truncated: a PNG without its end",
        "val/dog/text.jpg": "is a text file, not an image",
    }
    assert groups(found["exact_duplicates"], tmp_path) == [
        ("bytes", False, False, "train/cat/1.png", "train/cat/again.png"),
        ("bytes", False, True, "train/cat/twice.png", "train/dog/3.png"),
        ("bytes", True, False, "test/dog/leaked.png", "train/dog/0.png"),
        ("pixels", False, False, "train/dog/1.png", "train/dog/other.bmp"),
    ]
    assert groups(found["near_duplicates"], tmp_path) == [(None, True, False, "train/cat/2.png", "val/cat/near.jpg")]
    assert found["splits"] == {"train": 18, "validation": 6, "test": 3}
    assert found["classes"]["train"] == {"cat": 11, "dog": 7}
    assert found["missing_classes"] == {"test": ["cat"]}
    assert found["unknown_classes"] == {}
    assert found["empty_classes"] == [str(tmp_path / "train/yak")]
    assert [os.path.relpath(image["path"], tmp_path) for image in found["long"]] == ["train/cat/long.png"]
    assert [os.path.relpath(image["path"], tmp_path) for image in found["tiny"]] == ["train/cat/long.png"]
    assert [os.path.relpath(image["path"], tmp_path) for image in found["even"]] == ["train/cat/even.png"]
    assert found["ignored"] == []
    assert found["faults"] == {"unreadable": 2, "leakage": 2}
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "27 images: unreadable allowed (2 images), leakage allowed (2 groups), 1 image with two labels, "
        "2 groups of duplicates, 1 long image, 4 remarks"
    )


def test_check_of_sound_images_finds_nothing(
    tmp_path: Path, tiles: list[Pixels], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", "--images", str(clean_folders(tmp_path, tiles))])
    assert capsys.readouterr().out.splitlines() == [
        "class       train  validation  test",
        "cat             6           2     2",
        "dog             6           2     2",
        "all images     12           4     4",
        "",
        "pixels        smallest  median  largest",
        f"width              {SIDE}     {SIDE}      {SIDE}",
        f"height             {SIDE}     {SIDE}      {SIDE}",
        "aspect ratio         1       1        1",
        "",
        "20 images: no faults found",
    ]


# -- copies

CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "jpeg": jpeg,
    "resized": resized,
    "cropped": cropped,
    "brighter": brighter,
}


def test_check_finds_changed_copies_and_no_look_alikes(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    for number, pixels in enumerate(tiles):
        save(pixels, tmp_path / f"train/a/{number:02d}.png")
    for number, (name, change) in enumerate(CHANGES.items(), 4):  # above is sky
        for tile in range(number, 20, len(CHANGES)):
            save(change(tiles[tile]), tmp_path / f"test/a/{tile:02d}_{name}.png")
    found = check("--images", tmp_path)
    copies = sorted(os.path.basename(path) for path in (tmp_path / "test/a").iterdir())
    expected = [(None, True, False, f"test/a/{copy}", f"train/a/{copy[:2]}.png") for copy in copies]
    assert groups(found["near_duplicates"], tmp_path) == expected
    assert found["exact_duplicates"] == []


def test_check_joins_copies_of_copies_into_one_group(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    for name, pixels in {"a": tiles[0], "b": jpeg(tiles[0]), "c": resized(tiles[0]), "d": tiles[1]}.items():
        save(pixels, tmp_path / f"x/{name}.png")
    save(tiles[0], tmp_path / "y/a.bmp")
    found = check("--images", tmp_path)
    assert groups(found["exact_duplicates"], tmp_path) == [("pixels", False, True, "x/a.png", "y/a.bmp")]
    near = (None, False, True, "x/a.png", "x/b.png", "x/c.png", "y/a.bmp")
    assert groups(found["near_duplicates"], tmp_path) == [near]


def test_check_does_not_take_even_images_for_copies(tmp_path: Path, check: Check) -> None:
    generator = np.random.default_rng(0)
    for number in range(30):
        pixels = generator.normal(60 + 5 * number, 1, (64, 64, 3))
        save(np.asarray(pixels, dtype=np.uint8), tmp_path / f"a/{number}.png")
    found = check("--images", tmp_path)
    assert (found["near_duplicates"], found["exact_duplicates"], len(found["even"])) == ([], [], 30)


def test_check_does_not_take_an_image_to_predict_for_a_leak(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    clean_folders(tmp_path, tiles)
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "new/0.png")
    classes = [
        f"--data.dataset_classes.{split}={tmp_path / folder}"
        for split, folder in {"train": "train", "validation": "val", "test": "test", "predict": "new"}.items()
    ]
    found = check(*classes)
    assert groups(found["exact_duplicates"], tmp_path) == [("bytes", False, False, "new/0.png", "train/cat/0.png")]
    assert (found["splits"]["predict"], found["faults"]) == (1, {})


def test_check_shows_few_examples_and_says_how_many_more(
    tmp_path: Path, tiles: list[Pixels], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        save(tiles[0], tmp_path / f"a/{number:02d}.png")
        (tmp_path / f"a/bad{number:02d}.jpg").touch()
    main(["check", f"--images={tmp_path}", "--allow=unreadable"])
    lines = capsys.readouterr().out.splitlines()
    assert f"  {tmp_path}/a/bad09.jpg: is empty" in lines
    assert f"  {tmp_path}/a/bad10.jpg: is empty" not in lines
    assert "  and 2 more (--json FILE lists all)" in lines
    assert "exact duplicates: 1 group" in lines
    assert lines[-1] == "24 images: unreadable allowed (12 images), 1 group of duplicates"


def test_check_shows_some_of_many_classes_and_cuts_their_names(
    tmp_path: Path, tiles: list[Pixels], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"c{number}" for number in range(59)] + ["x" * 250]
    for number, name in enumerate(names):
        save(tiles[number % len(tiles)], tmp_path / "train" / name / "1.png")
        if number < 55:
            save(tiles[number % len(tiles)], tmp_path / "test" / name / "1.png")
    main(["check", f"--images={tmp_path}", "--allow=leakage"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [["c0", "1", "1"], ["c1", "1", "1"], ["c2", "1", "1"]]
    end = next(number for number, line in enumerate(lines) if line.startswith("all images"))
    assert end == 1 + 50 + 1
    assert re.fullmatch(r"and 10 more \(--json FILE lists all\) +10 +5", lines[end - 1])
    assert max(len(line) for line in lines[: end + 1]) < 150


def test_check_says_in_its_last_line_that_an_image_has_two_labels(
    tmp_path: Path, tiles: list[Pixels], capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("cat/0", "cat/1", "dog/2", "dog/3")):
        save(tiles[number], tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "cat/1.png", tmp_path / "dog/again.png")
    main(["check", f"--images={tmp_path}"])
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "5 images: no faults found, 1 image with two labels"


# -- faults and what allows them


def test_check_ends_with_an_error_unless_faults_are_allowed(
    tmp_path: Path, tiles: list[Pixels], capsys: pytest.CaptureFixture[str]
) -> None:
    clean_folders(tmp_path, tiles)
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "test/cat/leak.png")
    (tmp_path / "train/cat/bad.png").write_bytes(b"x")
    unreadable = "1 image cannot be read: repair or remove them, or accept them with --allow unreadable"
    leakage = "1 group of duplicates across splits: keep one image of each, or accept them with --allow leakage"
    line = ["check", "--images", str(tmp_path)]
    assert fails(line, capsys) == (2, f"imgcls: check: {unreadable}; {leakage}")
    assert fails([*line, "--allow", "leakage"], capsys) == (2, f"imgcls: check: {unreadable}")
    assert fails([*line, "--allow=unreadable"], capsys) == (2, f"imgcls: check: {leakage}")
    main([*line, "--allow", "leakage", "--allow", "unreadable"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "22 images: unreadable allowed (1 image), leakage allowed (1 group)"
    )


def test_check_writes_its_findings_also_where_it_ends_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/a/bad.png").write_bytes(b"x")
    files = [f"--json={tmp_path}/new/found.json", f"--html={tmp_path}/found.html"]
    with pytest.raises(SystemExit, match="2"):
        main(["check", f"--images={tmp_path / 'data'}", *files])
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == [f"All findings: {tmp_path}/new/found.json", f"Page: {tmp_path}/found.html"]
    assert json.loads((tmp_path / "new/found.json").read_text())["unreadable"] == [
        {
            "path": f"{tmp_path}/data/a/bad.png",
            "split": "train",
            "label": "a",
            "reason": "is a text file, not an image",
        }
    ]
    assert "data/a/bad.png: is a text file, not an image" in (tmp_path / "found.html").read_text()


# -- which images


def test_check_reads_a_folder_without_splits_as_train(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    for number, name in enumerate(("a/test/0.png", "a/val/1.png", "b/0.png", "b/1.png")):
        save(tiles[number], tmp_path / name)
    found = check("--images", tmp_path / "a", tmp_path / "b")
    assert found["splits"] == {"train": 4}
    assert found["classes"] == {"train": {"test": 1, "val": 1}}
    assert check("--images", tmp_path)["classes"] == {"train": {"a": 2, "b": 2}}


def test_check_accounts_for_what_lies_beside_the_splits(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    clean_folders(tmp_path, tiles)
    save(tiles[0], tmp_path / "extra/0.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "train/Thumbs.db").touch()
    found = check("--images", tmp_path)
    assert {os.path.relpath(file["path"], tmp_path): file["reason"] for file in found["ignored"]} == {
        "extra": "beside the folders of the splits",
        "notes.txt": "beside the folders of the splits",
        "train/Thumbs.db": "written by a file browser",
    }


def test_check_names_classes_that_a_split_lacks(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    for number, name in enumerate(("train/a/0", "train/b/0", "train/b/1", "valid/a/0", "valid/c/0", "test/b/0")):
        save(tiles[number], tmp_path / f"{name}.png")
    found = check("--images", tmp_path)
    assert found["missing_classes"] == {"validation": ["b"], "test": ["a"]}
    assert found["unknown_classes"] == {"validation": ["c"]}
    assert found["imbalance"] == {"train": 2.0, "validation": 1.0, "test": 1.0}


def test_check_keeps_odd_names(
    tmp_path: Path, tiles: list[Pixels], check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [os.fsdecode(b"\xff\xfe\n.png"), "[red]<b>&.png", "\x1b[31m.png"]
    for name in odd:
        save(tiles[0], tmp_path / "[bold]" / name)
    (tmp_path / "[bold]/\udcff.jpg").touch()
    page = tmp_path / "page.html"
    found = check("--images", tmp_path, "--html", page)
    [group] = found["exact_duplicates"]
    assert {image["path"] for image in group["images"]} == {str(tmp_path / "[bold]" / name) for name in odd}
    assert all(os.path.isfile(image["path"]) for image in group["images"])
    output = capsys.readouterr().out
    assert "[bold]/\\udcff\\udcfe\\n.png" in output
    assert "[bold]/\\x1b[31m.png" in output
    assert "[bold]/[red]&lt;b&gt;&amp;.png" in page.read_text(encoding="utf-8")


def test_check_looks_at_what_predict_reads(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    clean_folders(tmp_path, tiles)
    (tmp_path / "test/loose.png").write_bytes(b"no image")
    (tmp_path / "test/notes.txt").write_text("left out")
    stream = {"urls": "file:0.tar", "class_names": ["cat", "dog"], "length": 9}
    spec = json.dumps({"class_path": "imgcls.StreamImageDataset", "init_args": stream})
    found = check(
        f"--data.dataset_classes.train={spec}",
        f"--data.dataset_classes.validation={tmp_path / 'val'}",
        f"--data.dataset_classes.predict={tmp_path / 'test'}",
    )
    assert list(found["splits"]) == ["validation", "predict"]
    assert [Path(item["path"]).name for item in found["unreadable"]] == ["loose.png"]
    assert str(tmp_path / "test/notes.txt") in str(found["ignored"])


def test_check_of_a_configuration_looks_at_its_datasets(tmp_path: Path, check: Check) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "ckpt_path: last\ndata:\n  validation_split: 0.25\n  dataset_classes:\n"
        "    train: {class_path: imgcls.DigitsDataset}\n"
        "    test: {class_path: imgcls.DigitsDataset, init_args: {part: test}}\n"
    )
    found = check("--config", config)
    assert found["splits"] == {"train": 1437, "test": 360}
    assert found["faults"] == {}
    assert len(found["tiny"]) == 1797
    assert found["sizes"]["width"] == {"min": 8, "median": 8, "max": 8}
    assert list(found["classes"]["test"]) == [str(digit) for digit in range(10)]


def test_check_with_workers_finds_the_same(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    plant(clean_folders(tmp_path, tiles))
    alone = check("--images", tmp_path, "--data.num_workers=0")
    assert check("--images", tmp_path, "--data.num_workers=2") == alone


class Deadly(Squares):
    """Images that kill the process that reads them."""

    def read(self, index: int) -> Pixels:
        os._exit(9)


def test_check_ends_when_a_worker_dies(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["check", f"--data.dataset_classes.test={__name__}.Deadly", "--data.num_workers=1"]
    code, message = fails(line, capsys)
    assert code == 1
    assert re.search(r"a data worker was killed .*; the last file that it read: square/\d+", message)


# -- the page


def test_check_page_holds_everything_it_shows(tmp_path: Path, tiles: list[Pixels], check: Check) -> None:
    folder, page = clean_folders(tmp_path, tiles), tmp_path / "page.html"
    check("--images", tmp_path, "--html", page)
    assert "<p>No faults found</p>" in page.read_text(encoding="utf-8")
    plant(folder)
    check("--images", tmp_path, "--html", page)
    text = page.read_text(encoding="utf-8")
    assert text.count('<img src="data:image/jpeg;base64,') == 10
    assert (text.count(">across splits<"), text.count(">two labels<")) == (2, 1)
    assert ("http" in text, "<script" in text, "1 group<" in text) == (False, False, True)
    first = base64.b64decode(text.partition("base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(first)).size == (192, 192)


# -- refusals

WRONG = {
    "": "check: no data; type: imgcls check PHOTOS",
    "--images": "--images needs a value; type --images PATH",
    "--images=nowhere": "/nowhere: no such folder; check needs folders",
    "--images=empty": "--images empty: no image found",
    "--images data data/val": "/data/val/ is in ",
    "--images data --data.dataset_classes.train=data/train": "--images and data.dataset_classes.train are both given",
    "--images data --allow leaks": "'leakage' or 'unreadable'",
    "--images data --json data": "--json data: is a folder; give a file, for example data/check.json",
    "--images both": "val and valid are both validation; keep one",
    "data": "--images data: no image found",
}


@pytest.mark.parametrize("line", WRONG)
def test_check_refuses_what_it_cannot_do(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("data/train/a", "data/val/a", "empty", "both/train", "both/val", "both/valid"):
        Path(folder).mkdir(parents=True)
    code, message = fails(["check", *line.split()], capsys)
    assert code == 2
    assert WRONG[line] in message


# -- look-alikes


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_check_of_solar_cells_finds_planted_copies_and_nothing_else(name: str, tmp_path: Path, check: Check) -> None:
    write_elpv(tmp_path)
    cells = sorted((tmp_path / "train").rglob("*.png"))[::65]
    for cell in cells:
        copy = CHANGES[name](np.array(Image.open(cell).convert("RGB")))
        save(copy, tmp_path / "test" / cell.parent.name / f"{name}_{cell.name}")
    found = check("--images", tmp_path)
    planted = {frozenset({f"{name}_{cell.name}", cell.name}) for cell in cells}
    pairs = {frozenset(map(os.path.basename, names(group, tmp_path))) for group in found["near_duplicates"]}
    assert (found["exact_duplicates"], pairs - planted) == ([], set())
    assert len(planted & pairs) >= 0.9 * len(planted)
