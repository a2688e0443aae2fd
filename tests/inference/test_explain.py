"""``imgcls explain`` and ``imgcls.load(…).explain``: pictures, table, classes by name, broken files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import imgcls
from imgcls.cli.main import main
from tests.helpers.runs import fails


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    line = ["fit", str(photos), "--model.model_name", str(tiny_model), "--model.pretrained", "false"]
    line += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.num_workers", "0"]
    main([*line, "--experiment.output_dir", str(folder), "--experiment.custom_folder_name", "x"])
    return folder / "x" / "version_0"


def test_pictures_and_table(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    for number, name in enumerate(("red", "green")):
        Image.open(photos / name / "000.png").save(f"new/{name}.png")
        Image.open(photos / name / "001.png").save(Path("new", ["red.webp", "green.bmp"][number]))
    Path("new/broken.png").write_bytes(b"no image")
    main(["explain", str(run), "new", "--output", "out"])
    output = capsys.readouterr()
    assert output.out == "out\n"
    assert "1 of 5 images could not be explained" in output.err
    table = pd.read_csv("out/explanations.csv", keep_default_na=False).set_index("path")
    expected = imgcls.load(run, num_workers=0).predict("new")
    assert list(table.index) == sorted(str(path) for path in Path("new").iterdir())
    assert [table[name].loc["new/broken.png"] for name in ("file", "layer", "prediction")] == ["", "", ""]
    assert "not an image" in str(table["error"].loc["new/broken.png"])
    good = table.loc[table["error"] == ""]
    expected = expected.loc[expected["error"] == ""]
    assert list(good["prediction"]) == list(good["target"]) == list(expected["prediction"])
    assert good["probability"].astype(float).tolist() == pytest.approx(expected["probability"].tolist(), abs=1e-6)
    assert set(zip(good["grid"], good["drawn_on"], good["error"], strict=True)) == {("8 x 8", "photo", "")}
    assert table["file"].tolist() == ["", "green.png", "green_2.png", "red.png", "red_2.png"]
    with Image.open("out/red.png") as panel:
        assert min(panel.size) > 224

    code, error = fails(["explain", str(run), "new", "--output", "out"], capsys)
    assert (code, "out exists; add --overwrite to replace it" in error) == (2, True)
    main(["explain", str(run), "new/red.png", "--output", "out", "--overwrite", "--target", "blue", "--against", "red"])
    again = pd.read_csv("out/explanations.csv", keep_default_na=False)
    assert again[["target", "against", "file"]].values.tolist() == [["blue", "red", "red.png"]]
    assert sorted(path.name for path in Path("out").iterdir()) == ["explanations.csv", "red.png"]


def test_what_is_refused(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(photos / "red" / "000.png")
    for line, text in {
        ("--target", "rod"): "target: the model has no class 'rod'; did you mean 'red'?",
        ("--target", "red", "--against", "red"): "target and against must differ, got 'red' for both",
    }.items():
        code, error = fails(["explain", str(run), photo, *line], capsys)
        assert (code, text in error) == (2, True), error


def test_in_python(run: Path, photos: Path) -> None:
    classifier = imgcls.load(run, num_workers=0)
    [explanation] = classifier.explain(photos / "red" / "000.png")
    assert explanation.photo.shape == (*explanation.heat_map.shape, 3) == explanation.overlay().shape
    assert max(explanation.photo.shape) == 224
    assert np.nanmin(explanation.heat_map) >= 0
    assert np.nanmax(explanation.heat_map) <= 1
    assert explanation.target == explanation.prediction
    array = np.asarray(Image.open(photos / "red" / "000.png").convert("RGB"))
    first, second = classifier.explain([array, array[:, ::-1].copy()], target="blue", against="red")
    assert (first.target, first.against, first.path) == ("blue", "red", "")
    np.testing.assert_allclose(first.heat_map, second.heat_map[:, ::-1], atol=0.1, err_msg="averaged over the flip")
    assert list(classifier.explain([])) == []
