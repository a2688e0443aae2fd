"""imgcls.load: the values of ``imgcls predict``, on files, arrays and Pillow images."""

import json
import logging
import os
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from PIL import Image

import imgcls
from imgcls.cli.main import main
from imgcls.errors import ConfigError
from imgcls.images import load_image
from tests.conftest import COLOURS
from tests.helpers.own_training import Logging
from tests.helpers.runs import arguments

CLASSES = sorted(COLOURS)
COLUMNS = ["path", "prediction", "probability", *(f"prob_{name}" for name in CLASSES), "error"]
SAMPLES = sorted(Path(sklearn.__file__).parent.glob("datasets/images/*.jpg"))


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; to be read only."""
    out = tmp_path_factory.mktemp("runs")
    main(["fit", *arguments(photos, tiny_model, out)])
    return out / "run/version_0"


@pytest.fixture(scope="module")
def classifier(run: Path) -> imgcls.Classifier:
    return imgcls.load(run, device="cpu", num_workers=0)


def written(run: Path, images: Path, folder: Path, *more: str) -> pd.DataFrame:
    """The CSV of the command."""
    output = folder / "predictions.csv"
    main(["predict", f"--ckpt_path={run}/checkpoints/best.ckpt", f"--images={images}", f"--output={output}", *more])
    table = pd.read_csv(output, dtype="str").assign(error=lambda found: found["error"].fillna(""))
    probabilities = [name for name in table if str(name).startswith("prob")]
    return table.astype(dict.fromkeys(probabilities, np.float32))


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame, *but: str) -> None:
    assert list(ours.columns) == list(theirs.columns) == COLUMNS
    pd.testing.assert_frame_equal(ours.drop(columns=list(but)), theirs.drop(columns=list(but)), check_exact=True)


@pytest.fixture(scope="module")
def broken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos, real ones, and three files that cannot be read."""
    folder = tmp_path_factory.mktemp("broken") / "new"
    shutil.copytree(photos, folder)
    for photo in SAMPLES:
        shutil.copy(photo, folder)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>")
    (folder / "truncated.jpg").write_bytes(SAMPLES[0].read_bytes()[:20_000])
    return folder


def test_top_k_has_the_columns_and_values_of_the_command(
    run: Path, classifier: imgcls.Classifier, broken: Path, tmp_path: Path
) -> None:
    theirs = written(run, broken, tmp_path, "--top_k=2", "--data.num_workers=0", "--trainer.accelerator=cpu")
    theirs = theirs.astype(dict.fromkeys(["top_1_probability", "top_2_probability"], np.float32))
    pd.testing.assert_frame_equal(classifier.predict(broken, top_k=2), theirs, check_exact=True)
    with pytest.raises(ConfigError, match="top_k must be between 1 and 3, the number of classes, got 4"):
        classifier.predict(broken, top_k=4)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_files_have_the_values_of_the_csv(run: Path, broken: Path, tmp_path: Path, workers: int, tta: Any) -> None:
    theirs = written(run, broken, tmp_path, f"--tta={tta}")
    ours = imgcls.load(run, device="cpu", num_workers=workers).predict(broken, tta=tta)
    assert_same(ours, theirs)
    bad = ours[ours["error"] != ""].set_index("path")
    assert [Path(path).name for path in bad.index] == ["empty.jpg", "page.jpg", "truncated.jpg"]
    assert bad.loc[f"{broken}/empty.jpg", "error"] == "is empty"
    assert bad.drop(columns="error").isna().to_numpy().all()
    assert ours["prob_red"].dtype == np.float32


def test_arrays_have_the_values_of_their_files(
    run: Path, photos: Path, classifier: imgcls.Classifier, tmp_path: Path
) -> None:
    theirs = written(run, photos, tmp_path)
    arrays = [load_image(path) for path in theirs["path"]]
    before = [array.copy() for array in arrays]
    ours = classifier.predict(arrays)
    assert_same(ours, theirs, "path")
    assert set(ours["path"]) == {""}
    assert all(map(np.array_equal, arrays, before))
    assert_same(imgcls.load(run, device="cpu", num_workers=1).predict(arrays), theirs, "path")


def test_a_stack_is_a_list_of_images(classifier: imgcls.Classifier) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    pd.testing.assert_frame_equal(classifier.predict(stack), classifier.predict(list(stack)))
    assert len(classifier.predict(stack[0])) == 1


def test_rows_keep_the_order_of_a_mixture(photos: Path, classifier: imgcls.Classifier, tmp_path: Path) -> None:
    red, blue = photos / "red/000.png", str(photos / "blue/000.png")
    table = tmp_path / "images.csv"
    table.write_text(f"path,other\n{red},1\n{blue},2\n{red},3\n")
    inputs: list[Any] = [red, load_image(blue), Image.open(red), "gone.png", blue, blue, table]
    found = classifier.predict(inputs)
    assert list(found["path"]) == [str(red), "", str(red), "gone.png", blue, blue, str(red), blue, str(red)]
    assert list(found["error"]) == ["", "", "", "No such file or directory", *[""] * 5]
    assert found["prediction"].fillna("none").str.cat(sep=" ") == "red blue red none blue blue red blue red"
    assert classifier.predict(pd.Series([red, blue]).astype(str).to_numpy())["prediction"].tolist() == ["red", "blue"]


def test_names_of_files_need_not_be_utf8(classifier: imgcls.Classifier, photos: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/bl\xfcte.png")
    shutil.copy(photos / "blue/000.png", path)
    [row] = classifier.predict(tmp_path).to_dict("records")
    assert (row["path"], row["prediction"], row["error"]) == (path, "blue", "")
    assert list(classifier.embed(path, as_frame=True).index) == [path]


def test_pillow_images_have_the_values_of_their_files(classifier: imgcls.Classifier, tmp_path: Path) -> None:
    files = [*SAMPLES]
    photo = Image.open(SAMPLES[0]).resize((200, 150))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated
    variants: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rotated.jpg": (photo, {"exif": exif}),
        "cmyk.jpg": (photo.convert("CMYK"), {}),
        "grey.png": (photo.convert("L"), {}),
        "palette.png": (photo.convert("P"), {"transparency": 3}),
        "clear.png": (Image.merge("RGBA", [*photo.split(), photo.convert("L")]), {}),
        "deep.png": (Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257), {}),
    }
    for name, (image, options) in variants.items():
        image.save(tmp_path / name, **options)
        files.append(tmp_path / name)
    of_files = classifier.predict(files)
    of_images = classifier.predict([Image.open(file) for file in files])
    assert list(of_images["path"]) == list(of_files["path"]) == list(map(str, files))
    assert set(of_files["error"]) == {""}
    probs = [f"prob_{name}" for name in CLASSES]
    assert np.abs(of_files[probs].to_numpy() - of_images[probs].to_numpy()).max() < 1e-3
    assert of_files[probs].iloc[2].ne(of_files[probs].iloc[4]).all()  # rotated or grey makes a difference


def test_a_pillow_image_that_cannot_be_read_has_a_reason(classifier: imgcls.Classifier, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(SAMPLES[0].read_bytes()[:20_000])
    with Image.open(tmp_path / "cut.jpg") as cut:
        found = classifier.predict([cut, Image.new("F", (9, 9))])
    assert list(found["path"]) == [str(tmp_path / "cut.jpg"), ""]
    assert "truncated" in found["error"][0]
    assert found["error"][1] == "has floating-point pixels; 8 or 16 bits are supported"
    assert found["prob_red"].isna().all()


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        ("phtos", ConfigError, "^phtos: no such file or folder$"),
        (np.zeros((4, 4, 3), np.float32), ConfigError, r"uint8 of shape \(H, W, 3\).*got float32 of shape \(4, 4, 3\)"),
        ([np.zeros((4, 4), np.uint8)], ConfigError, r"of shape \(4, 4\); .*PIL.Image.fromarray"),
        (torch.zeros(1, 3, 4, 4), TypeError, r"got Tensor; convert it: tensor.permute\(1, 2, 0\).numpy\(\)"),
        ([b"photo"], TypeError, "expected paths, uint8 arrays .* or Pillow images, got bytes"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_other_inputs_are_refused(
    classifier: imgcls.Classifier, inputs: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        classifier.predict(inputs)


def test_no_image_gives_no_row(classifier: imgcls.Classifier) -> None:
    found = classifier.predict([])
    assert (list(found.columns), len(found)) == (COLUMNS, 0)
    assert classifier.embed([]).shape == (0, 16)


def test_features_are_those_of_the_head(
    broken: Path, classifier: imgcls.Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    features = classifier.embed(broken, as_frame=True)
    assert f"their features are NaN:\n  {broken}/empty.jpg: is empty\n  {broken}/page.jpg: " in caplog.text
    predicted = classifier.predict(broken)
    assert isinstance(features, pd.DataFrame)
    assert list(features.index) == list(predicted["path"])
    array = classifier.embed(broken)
    assert isinstance(array, np.ndarray)
    assert array.shape == (len(predicted), 16)
    assert array.dtype == np.float32
    assert np.array_equal(array, features.to_numpy(), equal_nan=True)
    bad = (predicted["error"] != "").to_numpy()
    assert np.isnan(array[bad]).all()
    with torch.no_grad():
        probs = classifier.model.classify(torch.from_numpy(array[~bad])).softmax(1).numpy()
    assert np.allclose(probs, predicted.loc[~bad, [f"prob_{name}" for name in CLASSES]], atol=1e-6)


def test_it_says_what_it_is(run: Path, tiny_model: Path, classifier: imgcls.Classifier) -> None:
    assert (classifier.class_names, classifier.multilabel, classifier.image_size) == (CLASSES, False, (32, 32))
    assert (classifier.batch_size, classifier.path) == (8, run / "checkpoints/best.ckpt")
    assert repr(classifier) == (
        f"Classifier({tiny_model}, 3 classes: 'blue', 'green', 'red', 32 x 32 pixels, cpu, {classifier.precision})"
    )
    assert imgcls.load(str(run / "checkpoints/last.ckpt"), batch_size=3).batch_size == 3


def test_what_cannot_be_loaded_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this folder has no checkpoints/best.ckpt; give a run folder"):
        imgcls.load(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no such file; did you mean '.*/run/version_0'\?"):
        imgcls.load(run.parent / "version_1")
    with pytest.raises(ConfigError, match="there is no such file"):
        imgcls.load(tmp_path / "best.ckpt")
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda, cuda:N or mps, got gpu"):
        imgcls.load(run, device="gpu")
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        imgcls.load(run, batch_size=0)
    with pytest.raises(ConfigError, match="tta must be one of none, hflip, flips, got 'flip'"):
        imgcls.load(run).predict([], tta="flip")  # type: ignore[arg-type]


def test_precision_and_image_size_of_the_run_are_kept(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    own = ["--trainer.precision=bf16-true", "--data.image_size=48", "--trainer.max_epochs=1"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *own)])
    run = tmp_path / "run/version_0"
    loaded = imgcls.load(run, device="cpu")
    assert (loaded.precision, loaded.image_size, loaded.model.pixel_mean.dtype) == (
        "bf16-true",
        (48, 48),
        torch.bfloat16,
    )
    assert_same(loaded.predict(photos), written(run, photos, tmp_path))
    assert torch.get_default_dtype() == torch.float32


def test_own_classes_are_loaded_if_the_configuration_is_given(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    darker = {"class_path": "tests.helpers.own.darker", "init_args": {"amount": 60}}
    size = {"class_path": "albumentations.Resize", "init_args": {"height": 24, "width": 32}}
    own = ["--model=tests.helpers.own_training.Logging", f"--data.augmentations.eval={json.dumps([size, darker])}"]
    main(["fit", *own, *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    run = tmp_path / "run/version_0"
    config = run / "config.yaml"
    with pytest.raises(ConfigError, match=f"uses your class .*Logging; add config='{config}' to load it"):
        imgcls.load(run)
    loaded = imgcls.load(run, device="cpu", config=config)
    assert (type(loaded.model), loaded.image_size) == (Logging, (24, 32))
    assert_same(loaded.predict(photos), written(run, photos, tmp_path, f"--config={config}"))


def state() -> list[object]:
    """What a library leaves alone."""
    loggers = [logging.root, *(logging.getLogger(name) for name in ("imgcls", "lightning.pytorch", "PIL"))]
    return [
        [(log.level, list(log.handlers), log.propagate) for log in loggers],
        [list(warnings.filters), warnings.formatwarning, warnings.showwarning],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        [torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        [torch.get_rng_state().tolist(), str(np.random.get_state())],
    ]


def test_nothing_of_the_process_is_changed(run: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = state()
    imgcls.load(run, num_workers=1).predict(photos)
    assert state() == before
    assert capfd.readouterr() == ("", "")
