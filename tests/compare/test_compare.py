"""Verdicts on made-up runs: who is better, what would tell, and which images and configurations are compared."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from imgcls.compare.comparison import Comparison, compare
from imgcls.compare.configurations import Setting, differences
from imgcls.compare.sentences import method, other_scores, remarks, verdict
from imgcls.errors import ConfigError
from imgcls.results.run import read_run
from imgcls.statistics.paired import images_needed
from tests.helpers.given_answers import answers, config, write_run

IMAGES = 400
LABELS = np.arange(IMAGES) % 2


def right(wrong: int, start: int = 0, images: int = IMAGES) -> np.ndarray:
    """All right but ``wrong`` images in a row."""
    found = np.ones(images, dtype=bool)
    found[start : start + wrong] = False
    return found


def run(folder: Path, wrong: int, start: int = 0, **options: Any) -> Path:
    return write_run(folder, LABELS, answers(LABELS, right(wrong, start)), **options)


def compared(*folders: Path) -> Comparison:
    return compare([read_run(folder) for folder in folders])


def test_the_better_run_is_named(tmp_path: Path) -> None:
    found = compared(run(tmp_path / "a", 60), run(tmp_path / "b", 20, settings=config(lr=0.1)))
    [pair] = found.pairs
    p_value = binomtest(0, 40).pvalue
    assert pair.differences["accuracy"].p_value == pytest.approx(p_value)
    assert pair.only == (0, 40)
    assert found.better(pair, found.metrics[0]) == "B"
    assert verdict(found, pair).startswith("B is better than A by 10.0 points of accuracy (95 % interval 7.")
    assert verdict(found, pair).endswith("p < 0.001)")
    assert [tuple(each) for each in found.settings] == [("model.optimizer_config.lr", ["0.001", "0.1"])]


def test_a_default_is_given_with_its_value_where_all_runs_record_it(tmp_path: Path) -> None:
    key = "model.optimizer_config.lr"
    folders = [run(tmp_path / name, 20, settings=config(lr=lr)) for name, lr in (("a", None), ("b", 0.1), ("c", None))]
    rates = [{key: 0.001}, {}, {key: 0.0003}]

    def shown() -> list[Setting]:
        return differences([read_run(folder) for folder in folders])

    for folder, defaults in zip(folders, rates, strict=True):
        assert shown() == [Setting(key, ["null", "0.1", "null"])]
        (folder / "results.json").write_text(json.dumps({"run": {"defaults": defaults}}))
    assert shown() == [Setting(key, ["0.001 (default)", "0.1", "0.0003 (default)"])]


def test_how_many_images_would_tell(tmp_path: Path) -> None:
    found = compared(run(tmp_path / "a", 20), run(tmp_path / "b", 16, 18, settings=config(lr=0.1)))
    [pair] = found.pairs
    assert pair.only == (14, 18)
    share, difference = 32 / IMAGES, 4 / IMAGES
    assert pair.needed == pytest.approx((share - difference**2) * (2.8016 / difference) ** 2, rel=0.1)
    assert "A and B are not distinguishable in accuracy (A - B: -1.0 points, 95 % interval" in verdict(found, pair)
    assert "more test images would tell them apart" in verdict(found, pair)


def test_a_score_that_one_class_does_not_define_is_left_out(tmp_path: Path) -> None:
    labels = np.zeros(100, np.int64)
    for name, wrong, rate in (("a", 10, 0.1), ("b", 12, 0.2)):
        write_run(tmp_path / name, labels, answers(labels, right(wrong, images=100)), settings=config(lr=rate))
    found = compared(tmp_path / "a", tmp_path / "b")
    assert [metric.name for metric in found.metrics] == ["accuracy", "macro_f1", "log_loss", "ece"]
    assert other_scores(found, found.pairs[0]) == ""


def test_equal_runs_have_the_same_accuracy(tmp_path: Path) -> None:
    found = compared(run(tmp_path / "a", 20), run(tmp_path / "b", 20, 50, settings=config(seed=2)))
    assert verdict(found, found.pairs[0]).endswith("p = 1.00); their accuracy is the same")
    assert found.settings == []


def test_scores_have_intervals(tmp_path: Path) -> None:
    found = compared(run(tmp_path / "a", 60), run(tmp_path / "b", 20, settings=config(lr=0.1)))
    value = found.configurations[0].values["accuracy"]
    assert value.value == 0.85
    assert value.interval == pytest.approx((0.8117, 0.8817), abs=1e-3)
    given = found.configurations[1].values["macro_f1"]
    assert given.value == pytest.approx(f1_score(LABELS, np.where(right(20), LABELS, 1 - LABELS), average="macro"))
    assert given.interval is not None
    assert given.interval.low < given.value < given.interval.high
    assert found.pairs[0].differences["macro_f1"].value < 0


def test_seeds_of_a_configuration_are_one(tmp_path: Path) -> None:
    caches: list[dict[str, Any]] = [{"data": {"init_args": {"create_dataset": seed > 1}}} for seed in range(3)]
    folders = [
        run(tmp_path / f"a{seed}", 60 + seed, settings=config(seed, name=f"a{seed}") | caches[seed])
        for seed in range(3)
    ]
    folders += [run(tmp_path / f"b{seed}", 20 + seed, settings=config(seed, lr=0.1)) for seed in range(2)]
    found = compared(*folders)
    assert [each.runs for each in found.configurations] == [[0, 1, 2], [3, 4]]
    assert [each.seeds for each in found.configurations] == [["0", "1", "2"], ["0", "1"]]
    assert found.configurations[0].values["accuracy"].value == pytest.approx(1 - 61 / IMAGES)
    assert found.pairs[0].only is None
    assert verdict(found, found.pairs[0]).startswith("B is better than A by 10.1 points of accuracy")
    assert not any("one run" in line for line in remarks(found))


def test_the_variance_of_seeds_counts(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"a{wrong}", wrong, settings=config(wrong)) for wrong in (10, 90)]
    folders += [run(tmp_path / f"b{wrong}", wrong, settings=config(wrong, lr=0.1)) for wrong in (40, 100)]
    found = compared(*folders)
    [pair] = found.pairs
    assert pair.differences["accuracy"].seed_variance > 10 * pair.differences["accuracy"].image_variance
    assert pair.needed is None
    assert "no number of test images" in verdict(found, pair)


def test_few_seeds_need_many_images_or_more_seeds(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / f"a{seed}", wrong, 60 * seed, settings=config(seed)) for seed, wrong in ((0, 55), (1, 63))
    ]
    found = compared(*folders, run(tmp_path / "b", 32, 150, settings=config(lr=0.1)))
    [pair] = found.pairs
    difference = pair.differences["accuracy"]
    assert difference.p_value > 0.05
    assert 1 < difference.degrees < 2
    by_normal_quantiles = images_needed(difference._replace(degrees=np.inf), IMAGES)
    assert by_normal_quantiles is not None
    assert by_normal_quantiles < IMAGES
    assert pair.needed is not None
    assert pair.needed > 2 * IMAGES
    assert "00 more test images would tell them apart, or fewer with more seeds" in verdict(found, pair)


def test_a_number_that_is_there_is_not_asked_for(tmp_path: Path) -> None:
    few = np.arange(6) % 2
    for name, wrong, rate in (("a", 5, 0.1), ("b", 0, 0.2)):
        write_run(tmp_path / name, few, answers(few, right(wrong, images=6)), settings=config(lr=rate))
    found = compared(tmp_path / "a", tmp_path / "b")
    [pair] = found.pairs
    assert pair.differences["accuracy"].p_value == pytest.approx(2 * 0.5**5)
    assert verdict(found, pair).endswith("; more test images are needed")
    seeds = replace(found, pairs=[replace(pair, only=None)])
    assert verdict(seeds, seeds.pairs[0]).endswith("; more seeds are needed")


def test_each_pair_is_worded_by_its_own_test(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"a{seed}", 60 + seed, settings=config(seed)) for seed in range(2)]
    folders += [
        run(tmp_path / name, wrong, settings=config(lr=rate)) for name, wrong, rate in (("b", 40, 1), ("c", 20, 2))
    ]
    found = compared(*folders)
    assert [pair.only for pair in found.pairs] == [None, None, (0, 20)]
    text = method(found)
    assert "exact McNemar test (pairs of single runs), two-level analysis of images and seeds (other pairs)" in text
    assert "paired bootstrap over images, and over seeds where there are several, within classes" in text
    [line] = [line for line in remarks(found) if "one run" in line]
    assert line.startswith("B and C have one run each: comparing them compares these trained models.")


def test_the_test_of_all_pairs_is_named(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a", 60), run(tmp_path / "b", 20, settings=config(lr=0.1))
    text = method(compared(one, other))
    assert "Accuracy: exact McNemar test; other scores: paired bootstrap over images, within classes." in text
    more = run(tmp_path / "c", 21, settings=config(2, lr=0.1))
    text = method(compared(one, other, more))
    assert (
        "Accuracy: two-level analysis of images and seeds; other scores: paired bootstrap over images and seeds" in text
    )


def test_a_seed_does_not_count_twice(tmp_path: Path) -> None:
    folders = [run(tmp_path / name, 20, settings=config(1)) for name in ("a", "b")]
    assert len(compared(*folders).configurations) == 2  # alone, they are compared with each other
    with pytest.raises(ConfigError, match="same configuration and the same seed_everything, 1; leave one of them out"):
        compared(*folders, run(tmp_path / "c", 20, settings=config(1, lr=0.1)))


def test_several_pairs_are_adjusted(tmp_path: Path) -> None:
    wrong = {"a": (20, 0), "b": (27, 0), "c": (20, 100)}
    runs = [run(tmp_path / name, *each, settings=config(lr=each[0] + each[1])) for name, each in wrong.items()]
    found = compared(*runs)
    first = found.pairs[0]
    assert first.differences["accuracy"].p_value == pytest.approx(2 * 0.5**7)
    assert first.adjusted["accuracy"] == pytest.approx(3 * 2 * 0.5**7)
    assert "p-values are adjusted for 3 comparisons (Holm)." in remarks(found)


def test_images_are_matched_by_content(tmp_path: Path) -> None:
    contents = [f"{number:04x}" for number in range(IMAGES)]
    one = run(tmp_path / "a", 20, contents=contents)
    order = np.random.default_rng(0).permutation(IMAGES)[10:]
    names = [f"moved/{number}.png" for number in range(len(order))]
    probs = answers(LABELS, right(20))[order][:, ::-1]
    other = write_run(
        tmp_path / "b",
        1 - LABELS[order],
        probs,
        names=("dog", "cat"),
        paths=names,
        contents=[contents[i] for i in order],
    )
    found = compared(one, other)
    assert (found.images.by, len(found.images), found.images.others) == ("content", IMAGES - 10, [10, 0])
    assert found.pairs[0].differences["accuracy"] == (0, (0, 0), 1, 0, 0, np.inf)
    assert f"{tmp_path / 'a'} has 10 more images, which are left out." in remarks(found)


def test_evaluations_of_other_data_are_matched_by_their_own_contents(tmp_path: Path) -> None:
    contents = [f"{number:04x}" for number in range(IMAGES)]
    folders = []
    for number, name in enumerate("ab"):
        home = run(tmp_path / name, 20, contents=[f"home {each}" for each in contents])
        paths = [f"{name}/{index}.png" for index in range(IMAGES)]
        folders.append(run(home / "evaluations/1", 20 + number, paths=paths, contents=contents))
        record = {"changed": {"data.init_args.dataset_classes.test": name}}
        (folders[-1] / "evaluation.json").write_text(json.dumps(record))
    found = compared(*folders)
    assert (found.images.by, len(found.images)) == ("content", IMAGES)
    (folders[0] / "splits.csv").unlink()
    with pytest.raises(ConfigError, match=r"have no test image in common \(matched by path\)"):
        compared(*folders)


def test_runs_without_a_common_image_are_named(tmp_path: Path) -> None:
    folders = [run(tmp_path / name, 20) for name in "ab"]
    folders.append(run(tmp_path / "c", 20, paths=[f"other/{number}.jpg" for number in range(IMAGES)]))
    with pytest.raises(ConfigError, match=f"{tmp_path / 'a'} and {tmp_path / 'c'} have no test image in common"):
        compared(*folders)


def test_other_scores_that_differ_are_named(tmp_path: Path) -> None:
    probs = answers(LABELS, right(20))
    one = write_run(tmp_path / "a", LABELS, probs)
    other = write_run(tmp_path / "b", LABELS, 0.7 * probs + 0.15, settings=config(lr=0.1))
    found = compared(one, other)
    assert "not distinguishable in accuracy" in verdict(found, found.pairs[0])
    assert other_scores(found, found.pairs[0]) == "A is better in log loss (p < 0.001)"
    same = compared(one, run(tmp_path / "c", 20))
    assert other_scores(same, same.pairs[0]) == ""


def test_copies_of_an_image_are_matched_in_turn(tmp_path: Path) -> None:
    contents = [f"{number // 2}" for number in range(IMAGES)]  # a cat and a dog of each
    one = run(tmp_path / "a", 20, contents=contents)
    order = np.arange(IMAGES)[::-1]
    other = write_run(tmp_path / "b", LABELS[order], answers(LABELS, right(20))[order], contents=contents[::-1])
    assert compared(one, other).pairs[0].differences["accuracy"].value == 0


def test_unequal_files_of_one_name_are_not_matched(tmp_path: Path) -> None:
    one = run(tmp_path / "a", 20, contents=[f"{number}" for number in range(IMAGES)])
    other = run(tmp_path / "b", 20, contents=[f"{number if number % 2 else -number}" for number in range(IMAGES)])
    assert compared(one, other).images.others == [199, 199]


def test_multi_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.4).astype(np.int64)
    close, far = (np.clip(labels + rng.normal(0, spread, labels.shape), 0, 1) for spread in (0.3, 0.6))
    names = ("bird", "cat", "dog")
    one = write_run(tmp_path / "a", labels, close, names=names)
    found = compared(one, write_run(tmp_path / "b", labels, far, names=names, settings=config(lr=1)))
    assert [metric.title for metric in found.metrics] == ["Exact match", "Macro F1", "mAP", "Log loss", "ECE"]
    expected = ((close > 0.5) == labels).all(axis=1).mean()
    assert found.configurations[0].values["accuracy"].value == pytest.approx(expected)
    assert verdict(found, found.pairs[0]).startswith("A is better than B by")
    assert all(found.better(found.pairs[0], metric) == "A" for metric in found.metrics if metric.paired)
    assert "paired bootstrap over images. Beside a verdict" in method(found)  # multi-label: not within classes


def test_validation_images_are_marked(tmp_path: Path) -> None:
    folders = [run(tmp_path / "a", 60, split="validation"), run(tmp_path / "b", 20, split="validation")]
    found = compared(*folders)
    assert found.images.chose_epoch
    assert "imgcls test RUN FOLDER" in remarks(found)[0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"names": ("cat", "cow")}, "have other classes: only one of them has 'cow'"),
        ({"paths": [f"other/{number}.jpg" for number in range(IMAGES)]}, "have no test image in common"),
        ({"split": "validation"}, "b has no test_predictions.csv and .*a no validation_predictions.csv"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compared(run(tmp_path / "a", 20), run(tmp_path / "b", 20, **other))


def test_another_label_is_an_error(tmp_path: Path) -> None:
    changed = LABELS.copy()
    changed[[7, 9]] = 0
    other = write_run(tmp_path / "b", changed, answers(changed, right(20)))
    with pytest.raises(
        ConfigError, match=r"photos/7.jpg: has the label 'dog' in .*, but 'cat' in .* \(2 images differ"
    ):
        compared(run(tmp_path / "a", 20), other)
