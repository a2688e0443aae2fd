"""Five planted diseases, each through a real fit: the first advice names it; a healthy run has none of the five."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from imgcls.cli.main import main
from imgcls.report.advice import Advice, advise
from imgcls.results.run import Run, read_run
from tests.helpers.diseases import GIVEN, LEAKED, SICK, Disease, fit_line

KINDS = {"few_images", "leak", "short_training", "shortcut", "suspected_label_errors"}


@pytest.fixture(scope="module")
def fitted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Disease], Run]:
    """Return the run of a disease; each is trained once."""

    @cache
    def fit(disease: Disease) -> Run:
        out = tmp_path_factory.mktemp("runs")
        main(fit_line(disease, tiny_model, out))
        return read_run(out / disease / "version_0")

    return fit


def first(run: Run) -> Advice:
    found = advise(run)
    assert found, "no advice"
    return found[0]


def test_flipped_labels(fitted: Callable[[Disease], Run]) -> None:
    run = fitted("flipped")
    advice = first(run)
    assert advice.kind == "suspected_label_errors"
    assert f"may have a wrong label, and may be {SICK!r}" in advice.title
    assert f" {GIVEN!r}" in advice.evidence
    flipped = set(run.splits.query("label == @GIVEN")["path"]) & _digits(SICK) if run.splits is not None else set()
    assert len(flipped & set(advice.paths)) >= len(advice.paths) / 2


def test_class_of_few_images(fitted: Callable[[Disease], Run]) -> None:
    advice = first(fitted("few"))
    assert advice.kind == "few_images"
    assert advice.title == f"Class {SICK!r} has only 10 training images"
    assert f"Collect images of {SICK!r}" in advice.action
    assert set(advice.paths) <= _digits(SICK)


def test_brightness_as_a_shortcut(fitted: Callable[[Disease], Run]) -> None:
    advice = first(fitted("bright"))
    assert advice.kind == "shortcut"
    assert advice.title.startswith(f"Brightness predicts class {SICK!r} by itself")
    assert set(advice.paths) <= _digits(SICK)


def test_leak(fitted: Callable[[Disease], Run]) -> None:
    advice = first(fitted("leak"))
    assert advice.kind == "leak"
    assert advice.title == f"{LEAKED} images of test (5.6 %) also in train and validation: the score is too good"
    assert len(advice.paths) == LEAKED


def test_one_epoch(fitted: Callable[[Disease], Run]) -> None:
    advice = first(fitted("one_epoch"))
    assert advice.kind == "short_training"
    assert "after 1 epoch" in advice.title
    assert advice.action.endswith("version_0/config.yaml --trainer.max_epochs 20`.")


def test_healthy_run_has_none_of_them(fitted: Callable[[Disease], Run]) -> None:
    assert KINDS & {advice.kind for advice in advise(fitted("healthy"))} == set()


def test_properties_of_the_run(fitted: Callable[[Disease], Run]) -> None:
    run = fitted("healthy")
    table = pd.read_csv(run.folder / "image_properties.csv")
    assert table["split"].value_counts().to_dict() == {"train": 1000, "validation": 288, "test": 360}
    assert set(table["width"]) == {8}
    assert table["bytes"].isna().all()
    assert run.splits is not None
    assert set(table["path"]) <= set(run.splits["path"])


def _digits(label: str) -> set[str]:
    """The paths of the digits that truly are of a class."""
    from imgcls.datasets.digits import DigitsDataset

    tables = [DigitsDataset("train").samples, DigitsDataset("test").samples]
    return {path for table in tables for path in table[table["label"] == label]["path"]}
