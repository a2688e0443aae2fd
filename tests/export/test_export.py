"""The command export: from a run to a folder that another program loads, or to nothing."""

import ast
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import metadata_load
from transformers import CLIPImageProcessor, pipeline

from imgcls.cli.main import main
from imgcls.export import hf, hf_processor, run_pipeline
from imgcls.export.export import load_exact
from tests.conftest import write_class_folders
from tests.helpers.markdown import blocks
from tests.helpers.runs import arguments, fails


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose photos are gone; to be read only."""
    out = tmp_path_factory.mktemp("runs")
    photos = write_class_folders(out / "photos", 10)
    main(["fit", *arguments(photos, tiny_model, out)])
    shutil.rmtree(photos)
    return out / "run/version_0"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the program of an exported model in this process: a new one imports transformers for seconds."""

    def start(line: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        assert line[:2] == [sys.executable, "-P"]
        monkeypatch.setattr(sys, "argv", line[2:])
        runpy.run_path(line[2], run_name="__main__")
        return subprocess.CompletedProcess(line, 0, "", "")

    monkeypatch.setattr(subprocess, "run", start)


def test_folder_of_an_export(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, as a user has it; compared on sample photos, since those of the run are gone."""
    main(["export", str(run), "--output", str(tmp_path / "new/cats")])
    folder = tmp_path / "new/cats"
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(folder)
    assert (
        "Compared transformers.pipeline with imgcls predict in float32 on 8 images made of scikit-learn's"
        in printed.err
    )
    assert "same top-1 for 8 of 8, largest difference of a probability" in printed.err
    names = ["README.md", "config.json", "export.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert list(folder.parent.iterdir()) == [folder]  # nothing hidden is left
    about = json.loads((folder / "export.json").read_text())
    assert about["parity"] | {"max_difference": 0} == {
        **{"images": 8, "same_top1": 8, "max_difference": 0, "tolerance": 1e-3, "first_beyond": "", "beyond": 0},
        **{"left_out": {}, "source": "images made of scikit-learn's sample photos"},
    }
    assert about["class_names"] == ["blue", "green", "red"]
    assert about["checkpoint"]["path"] == "run/version_0/checkpoints/best.ckpt"
    assert [step["class_path"] for step in about["preprocessing"]] == ["imgcls.ResizeShortestEdge", "imgcls.CenterCrop"]
    assert str(tmp_path.parent) not in (folder / "export.json").read_text()  # no path of this machine


def test_program_of_the_comparison_does_not_import_imgcls() -> None:
    tree = ast.parse(Path(run_pipeline.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"argparse", "csv", "transformers"}


@pytest.mark.usefixtures("in_process")
def test_model_card(run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "card"
    main(["export", str(run), str(photos), "--output", str(folder)])
    text = (folder / "README.md").read_text()
    metadata = metadata_load(folder / "README.md")
    assert metadata is not None
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "image-classification"
    assert "base_model" not in metadata  # a folder of this machine
    [figures] = [result["metrics"] for result in metadata["model-index"][0]["results"]]
    results = json.loads((run / "results.json").read_text())
    accuracy = results["validation_accuracy"]
    assert {"type": "accuracy", "value": accuracy} in figures
    assert f"| accuracy | {accuracy:.4f} | 0." in text
    assert "On 6 validation images:" in text
    assert "Trained on 24 images; the best epoch was chosen on 6 validation images." in text
    assert "On 60 given images, transformers.pipeline" in text
    assert "for 60 of 60" in text
    assert "transparent images" in text
    assert "To be filled in" in text
    assert str(run.parent) not in text
    [block] = [block for block in blocks(folder / "README.md") if block.language == "python"]
    monkeypatch.chdir(folder)
    shutil.copy(photos / "red/000.png", "photo.jpg")
    found: dict[str, Any] = {}
    exec(block.text, found)  # noqa: S102 - the block that a reader copies
    assert {each["label"] for each in found["classify"]("photo.jpg")} == {"blue", "green", "red"}


@pytest.mark.usefixtures("in_process")
def test_temperature_of_a_checkpoint(run: Path, photos: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    checkpoint["state_dict"]["temperature"] = torch.tensor(2.0)
    torch.save(checkpoint, tmp_path / "hot.ckpt")
    main(["export", str(tmp_path / "hot.ckpt"), str(photos / "red"), "--output", str(tmp_path / "hot")])
    assert json.loads((tmp_path / "hot/export.json").read_text())["temperature"] == 2
    classify = pipeline("image-classification", str(tmp_path / "hot"))
    photo = str(photos / "red/000.png")
    cool, hot = (load_exact(path).predict(photo) for path in (run / "checkpoints/best.ckpt", tmp_path / "hot.ckpt"))
    assert abs(hot["probability"][0] - cool["probability"][0]) > 0.01
    assert classify(photo)[0]["score"] == pytest.approx(float(hot["probability"][0]), abs=1e-6)


def off_by_one(*given: Any) -> CLIPImageProcessor:
    processor = hf_processor.image_processor(*given)
    processor.size = {"shortest_edge": processor.size["shortest_edge"] + 1}
    return processor


@pytest.mark.usefixtures("in_process")
def test_planted_fault_ends_the_export_and_names_the_file(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hf, "image_processor", off_by_one)
    line = ["export", str(run), str(photos / "red"), "--output", str(tmp_path / "wrong")]
    code, error = fails(line, capsys)
    assert code == 1
    assert error.startswith("imgcls: the exported model differs from imgcls predict (")
    assert f"{tmp_path / 'wrong'} is not written: {photos / 'red'}/0" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_folder_that_exists(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "runs/run/version_0")
    monkeypatch.chdir(tmp_path)
    line = ["export", "--ckpt_path", "last", str(photos / "red"), "--overwrite"]
    main(line)
    folder = tmp_path / "runs/run/version_0/export/hf"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    (folder / "left").touch()
    main(line)
    assert not (folder / "left").exists()  # replaced as a whole
    assert fails(line[:-1], capsys)[0] == 2
    assert (folder / "export.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["hf"]
