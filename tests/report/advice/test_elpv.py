"""Five planted diseases in solar cells, by a head on frozen features: the first advice names each."""

from collections.abc import Callable
from functools import cache

import pytest

from imgcls.cli.main import main
from imgcls.report.advice import Advice, advise
from imgcls.results.run import read_run
from tests.helpers.diseases import Disease
from tests.helpers.real_data import write_efficientnet_lite0, write_elpv
from tests.helpers.sick_cells import FEW, LEAKED, MANY, RARE, frozen_fit_line, write_sick_cells
from tests.report.advice.test_diseases import KINDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def advice_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Disease], list[Advice]]:
    """Return the advice on a disease; each is trained once."""
    data = tmp_path_factory.mktemp("data")
    cells, model = write_elpv(data / "elpv"), write_efficientnet_lite0(data / "efficientnet_lite0")

    @cache
    def fit(disease: Disease) -> list[Advice]:
        root = write_sick_cells(cells, data / disease, disease)
        main(frozen_fit_line(root, disease, model, data / "runs"))
        return advise(read_run(data / "runs" / disease / "version_0"))

    return fit


def test_flipped_labels(advice_on: Callable[[Disease], list[Advice]]) -> None:
    advice = advice_on("flipped")[0]
    assert advice.kind == "suspected_label_errors"
    assert f"may have a wrong label, and may be {MANY!r}" in advice.title


def test_class_of_few_images(advice_on: Callable[[Disease], list[Advice]]) -> None:
    advice = advice_on("few")[0]
    assert advice.kind == "few_images"
    assert f"Class {RARE!r} has only {FEW - 2} training images" in advice.title


def test_brightness_as_a_shortcut(advice_on: Callable[[Disease], list[Advice]]) -> None:
    advice = advice_on("bright")[0]
    assert advice.kind == "shortcut"
    assert "Brightness predicts" in advice.title


def test_leak(advice_on: Callable[[Disease], list[Advice]]) -> None:
    advice = advice_on("leak")[0]
    assert advice.kind == "leak"
    assert len(advice.paths) == LEAKED


def test_one_epoch(advice_on: Callable[[Disease], list[Advice]]) -> None:
    assert advice_on("one_epoch")[0].kind == "short_training"


def test_healthy_run_has_none_of_them(advice_on: Callable[[Disease], list[Advice]]) -> None:
    assert KINDS & {advice.kind for advice in advice_on("healthy")} == set()
