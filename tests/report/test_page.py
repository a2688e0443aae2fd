"""The page: it asks nothing of the network, escapes what others wrote, and stays small."""

import base64
import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imgcls.report.advice import Advice
from imgcls.report.write import write_report, write_report_of
from imgcls.results.run import read_run
from tests.helpers.page import Page
from tests.helpers.run_folders import write_run

MOST = 3_000_000  # bytes


@pytest.mark.parametrize("multilabel", [False, True])
def test_no_request_and_one_script_that_is_allowed(multilabel: bool, tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path, ["cat", "dog", "cow"], 60, multilabel=multilabel, thumbnails=20)))
    policy = next(found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    [script] = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    links = [value for name in ("src", "href", "action", "srcset", "data") for value in page.values(name)]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert not any(name.startswith("on") for _, found in page.tags for name in found)


def test_links_lead_to_something_in_the_page(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path, [f"class {n}" for n in range(8)], 200, skill=1.5, thumbnails=96)))
    targets = {link[1:] for link in page.values("href") if link.startswith("#")}
    assert targets <= page.idents
    assert any(re.fullmatch(r"c-\d+-\d+", target) for target in targets)
    wrong = [name for name, value in page.numbers.items() if name.startswith("confusion.") and value]
    assert {f"c-{name.removeprefix('confusion.').replace('.', '-')}" for name in wrong} <= targets


def test_verdict_is_the_first_sentence(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path, ["functional", "defective"], 654, skill=2.2)))
    interval = "[\\d.]+ \N{EN DASH} [\\d.]+ %"
    found = re.search(
        rf"[\d.]+ % of 654 test images right \(95 % interval {interval} \); always predicting '\w+' gets", page.text
    )
    assert found, page.text[:500]
    assert "chose the best epoch" not in page.text


def test_validation_that_chose_the_epoch_is_marked(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path, ["cat", "dog"], 60, split="validation")))
    assert "These validation images also chose the best epoch" in page.text
    assert "60 images are few" in page.text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "\"><img src=x onerror='1'>", "{{ 7 * 7 }}", "-=&amp;", "byte \udcff", "a\nb"]
    write_run(tmp_path, names, 120, skill=1.0, thumbnails=6)
    evil = Advice("x", "<b>bold</b>", "é & <i>", "</script><script>alert(2)</script>", ["<u>.png", "\udcfe.png"])
    page = Page(write_report_of(read_run(tmp_path), [evil]))
    assert len(page.scripts) == 1
    assert not {"b", "i", "u"} & {tag for tag, found in page.tags if not found.get("style") and tag in {"u"}}
    assert not any("onerror" in found for _, found in page.tags)
    for text in (*names[:4], r"byte \udcff", r"a\nb", "<b>bold</b>", "<u>.png", r"\udcfe.png"):
        assert text in page.text
    assert "49" not in {word.strip() for word in page.words}


def test_a_run_without_thumbnails_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ["cat", "dog"], 60, skill=1.0)
    assert "This run has no thumbnails" in Page(write_report(folder)).text


def test_thumbnails_and_heat_maps_are_in_the_page_once(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path, ["cat", "dog"], 60, skill=1.0, thumbnails=60)))
    assert "The second picture is a heat map" in page.text
    pictures = [found["href"] for tag, found in page.tags if tag == "image"]
    assert len(pictures) == 90  # 60 images, half of them with a heat map
    assert len(set(pictures)) == 60
    assert {found["href"][1:] for tag, found in page.tags if tag == "use"} <= page.idents


def test_two_hundred_classes_are_named_and_clustered(tmp_path: Path) -> None:
    names = [f"species {number}" for number in range(200)]
    path = write_report(write_run(tmp_path, names, 1500, skill=4.0))
    page = Page(path)
    assert "200 classes are too many for a table" in page.text
    assert sum(name.endswith(".support") for name in page.numbers) == 200
    assert sum(found.get("src", "").startswith("data:image/png") for _, found in page.tags) == 1
    assert path.stat().st_size < MOST


def test_the_page_of_many_images_is_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_run(tmp_path, [f"class {number}" for number in range(4)], 100_000, skill=1.0)
    pictures = rng.integers(0, 256, (96, 30_000), dtype=np.uint8)  # more than fits
    rows = pd.read_csv(tmp_path / "test_predictions.csv")["path"][:96]
    (tmp_path / "thumbnails").mkdir()
    for number, content in enumerate(pictures):
        (tmp_path / f"thumbnails/{number}.webp").write_bytes(content.tobytes())
    with (tmp_path / "thumbnails.csv").open("w", newline="") as file:
        table = [[path, f"thumbnails/{number}.webp", ""] for number, path in enumerate(rows)]
        csv.writer(file).writerows([["path", "file", "heat_map"], *table])
    assert write_report(tmp_path).stat().st_size < MOST


def test_advice_is_shown_in_its_order(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ["cat", "dog"], 60)
    advice = [Advice(kind, f"{kind} title", "evidence", "action") for kind in ("first", "second")]
    page = Page(write_report_of(read_run(folder), advice))
    assert page.values("data-kind") == ["first", "second"]
    assert page.text.index("first title") < page.text.index("second title")


def test_epochs_are_counted_from_1_and_the_best_is_marked(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ["cat", "dog"], 60)
    results = {"epoch": 9, "run": {"precision": "bf16-mixed"}}
    (folder / "results.json").write_text(json.dumps(results))
    page = Page(write_report(folder))
    assert "The best epoch is 10 . Its weights were evaluated again in float32;" in page.text
    assert "Precision of the training bf16-mixed" in page.text
    assert re.findall(r'class="best".*?>(\d+)</span> \(best\)', page.source) == ["10"]
    assert " 0 20 " not in page.text


def test_images_are_named_by_their_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ["cat", "dog"], 60, skill=0.0)
    table = pd.read_csv(folder / "test_predictions.csv")
    table["path"] = [f"photos/{number // 2}/{number}.png" for number in range(58)] + ["a/b/x.png", "a/c/x.png"]
    table["prediction"] = np.where(table["label"] == "cat", "dog", "cat")
    table[["prob_cat", "prob_dog"]] = [[0.1, 0.9] if label == "cat" else [0.9, 0.1] for label in table["label"]]
    table.iloc[::-1].to_csv(folder / "test_predictions.csv", index=False)
    page = Page(write_report(folder))
    assert {"57.png", "b/x.png", "c/x.png"} <= {word.strip() for word in page.words}
    assert "photos/28/57.png" in page.values("title")


def test_settings_that_differ_from_the_defaults(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path, ["cat", "dog"], 60)))
    assert "data.batch_size 64 32" in page.text
    assert "trainer.max_epochs" not in page.text
    assert "photos/notes.jpg is empty" in page.text
