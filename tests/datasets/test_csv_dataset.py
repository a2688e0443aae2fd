"""A CSV of images: values stay text, and every row is used or named."""

import codecs
import logging
import os
import re
import shutil
from pathlib import Path

import pytest

from imgcls import CsvImageDataset
from imgcls.errors import ConfigError
from tests.helpers.runs import fails
from tests.helpers.ways_in import Trainer, assert_learned_and_found_again
from tests.helpers.ways_in import trainer as trainer


def write(folder: Path, text: str | bytes, *files: str) -> str:
    """A CSV, and empty files beside it."""
    for name in files:
        (folder / name).touch()
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(data: CsvImageDataset) -> str:
    with pytest.raises(ConfigError) as caught:
        _ = data.samples
    return str(caught.value).removeprefix(f"{data.csv}: ")


def test_csv_dataset_keeps_values_as_text(tmp_path: Path) -> None:
    text = "\ufeffpath,label,age,\n0001,0001,07,x\n1e3,nan,,y\nNA,NA,NULL,z\n"
    data = CsvImageDataset(write(tmp_path, text, "0001", "1e3", "NA")).samples
    assert data.to_dict("list") == {
        "path": [str(tmp_path / name) for name in ("0001", "1e3", "NA")],
        "label": ["0001", "nan", "NA"],
        "age": ["07", "", "NULL"],
    }


def test_csv_dataset_takes_the_columns_that_are_named(tmp_path: Path) -> None:
    text = 'patient;file;kind;label\np1;"a;1.jpg";cat;old\np2;b.jpg;dog;old\n'
    csv = write(tmp_path, text, "a;1.jpg", "b.jpg")
    data = CsvImageDataset(csv, "file", "kind", group_column="patient", separator=";").samples
    assert list(data.columns) == ["path", "label", "group", "patient"]
    assert list(data["label"]) == ["cat", "dog"]
    assert list(data["group"]) == list(data["patient"]) == ["p1", "p2"]


def test_csv_dataset_takes_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    data = CsvImageDataset(write(tmp_path, b"path,label\ncaf\xe9.jpg,x\n", name)).samples
    assert data["path"][0] == str(tmp_path / name)


def test_csv_dataset_refuses_labels_of_another_encoding(tmp_path: Path) -> None:
    latin = write(tmp_path, "path,label\na.jpg,Gänse\n".encode("latin-1"), "a.jpg")
    assert refusal(CsvImageDataset(latin)).startswith(r"row 2: the label 'G\udce4nse' is not UTF-8 (save the table as")
    unicode_text = write(tmp_path, codecs.BOM_UTF16_BE + "path,label\na.jpg,x\n".encode("utf-16-be"), "a.jpg")
    assert refusal(CsvImageDataset(unicode_text)) == "cannot be read as CSV: is UTF-16; save the table as UTF-8"


def test_csv_dataset_takes_paths_from_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    csv = write(tmp_path, "path,label\na.jpg,x\n", "images/a.jpg")
    assert list(CsvImageDataset(csv, root=str(tmp_path / "images")).samples["path"]) == [str(tmp_path / "images/a.jpg")]
    monkeypatch.chdir(tmp_path / "images")
    assert refusal(CsvImageDataset("../table.csv")).endswith("(paths are relative to ..; 'root' sets another folder)")


def test_csv_dataset_takes_the_rows_of_a_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    csv = write(tmp_path, "path,label,split\na,x,train\nb,y,test\nb,y,train\n", "a", "b")
    assert list(CsvImageDataset(csv, split="train").samples["path"]) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert refusal(CsvImageDataset(csv, split="val")) == "no row with 'val' in the column 'split': 'test', 'train'"
    assert refusal(CsvImageDataset(csv, split="x", split_column="Split")).startswith(
        "no column 'Split'; the columns are"
    )
    write(tmp_path, "path,label,split\na,x,train\nb,y,\n")
    assert refusal(CsvImageDataset(csv, split="train")) == "row 3: no split"
    with caplog.at_level(logging.INFO, "imgcls"):
        assert len(CsvImageDataset(csv).samples) == 2
    assert caplog.messages == [
        f"{csv} has a column 'split' but no split was chosen: using all rows. To use one part: init_args.split: train"
    ]


def test_csv_dataset_refuses_splits_that_differ_only_in_case(tmp_path: Path) -> None:
    csv = write(tmp_path, "path,label,split\na,x,train\nb,y,Train \nc,y,test\n", "a", "b", "c")
    assert refusal(CsvImageDataset(csv, split="train")).startswith(
        "the column 'split' has 'Train ', 'train', which differ only in"
    )
    assert len(CsvImageDataset(csv, split="test").samples) == 1


def test_csv_dataset_names_every_bad_row_as_a_spreadsheet_counts(tmp_path: Path) -> None:
    text = 'path,label\na.jpg,x\n"b\n2.jpg",\n\n,y\n./a.jpg,x\ngone.jpg, \n'
    data = CsvImageDataset(write(tmp_path, text, "a.jpg"))
    assert refusal(data) == (
        "row 3: no file 'b\\n2.jpg'; row 3: no label; row 5: no path; row 6: './a.jpg' is in row 2, too; "
        f"row 7: no file 'gone.jpg'; row 7: no label (paths are relative to {tmp_path}; 'root' sets another folder)"
    )


def test_csv_dataset_names_the_first_ten_bad_rows(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{number},x\n" for number in range(13))
    said = refusal(CsvImageDataset(write(tmp_path, text)))
    assert re.findall(r"row (\d+): no file", said) == [str(row) for row in range(2, 12)]
    assert "'9'; and 3 more (paths" in said


def test_csv_dataset_doubts_a_class_that_looks_like_two(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    csv = write(tmp_path, "path,label\na,cat\nb,cat;dog\n", "a", "b")
    assert list(CsvImageDataset(csv).samples["label"]) == ["cat", "cat;dog"]
    assert caplog.messages == [
        f"{csv}: 'cat;dog' is used as a single class; for a multi-label dataset set label_separator: ';'"
    ]


def test_csv_dataset_keeps_dangling_links_for_the_report(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("nothing")
    assert len(CsvImageDataset(write(tmp_path, "path,label\nlink.jpg,x\n")).samples) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'; the columns are none"),
        ("paths,label\n", "no column 'path'; the columns are 'paths', 'label'; did you mean 'paths'?"),
        ("path,path\n", "the header repeats the column 'path'"),
        ("path,label\na,x\nb,c,y\n", "row 3: more values than columns in the header"),
        ('path,label\n"a,x\n', "cannot be read as CSV: unexpected end of data"),
    ],
)
def test_csv_dataset_names_what_is_wrong_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(CsvImageDataset(write(tmp_path, text))) == message


def test_csv_dataset_names_a_file_that_is_none(tmp_path: Path) -> None:
    assert refusal(CsvImageDataset(str(tmp_path / "no.csv"))) == "cannot be read: No such file or directory"
    os.mkfifo(tmp_path / "pipe.csv")
    assert refusal(CsvImageDataset(str(tmp_path / "pipe.csv"))) == "is not a regular file"
    csv = write(tmp_path, "path,label\n")
    assert refusal(CsvImageDataset(csv, separator=";;")).startswith("cannot be read as CSV")
    assert refusal(CsvImageDataset(csv, label_column="lable")).endswith(
        "the columns are 'path', 'label'; did you mean 'label'?"
    )


def test_csv_dataset_without_labels_is_for_predict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    csv = write(tmp_path, "path,name\na.jpg,\n", "a.jpg")
    with caplog.at_level(logging.INFO, "imgcls"):
        assert CsvImageDataset(csv).samples["label"].isna().all()
    assert caplog.messages == [
        f"{csv}: no column 'label', so the images are unlabelled; the columns are 'path', 'name'"
    ]
    write(tmp_path, "path,label\na.jpg,\n")
    assert CsvImageDataset(csv, label_column=None).samples["label"].isna().all()


# -- through the command


def test_csv_trains_and_its_checkpoint_finds_it_again(
    trainer: Trainer, photos: Path, test_photos: Path, tmp_path: Path
) -> None:
    lines = [
        f"{file.relative_to(root.parent.parent)},{file.parent.name},{split}"
        for split, root in (("train", photos), ("test", test_photos))
        for file in sorted(root.rglob("*.png"))
    ]
    shutil.copytree(photos, tmp_path / photos.relative_to(photos.parent.parent))
    shutil.copytree(test_photos, tmp_path / test_photos.relative_to(test_photos.parent.parent))
    (tmp_path / "all.csv").write_text("\n".join(["file,colour,split", *lines]))
    specs = [
        {
            "class_path": "imgcls.CsvImageDataset",
            "init_args": {"csv": "all.csv", "path_column": "file", "label_column": "colour", "split": split},
        }
        for split in ("train", "test")
    ]
    assert_learned_and_found_again(trainer, *specs)
    rows = (trainer.run / "splits.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == sorted(str(tmp_path / line.split(",")[0]) for line in lines)


def test_fit_names_bad_rows_and_ends(tmp_path: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    csv = write(tmp_path, "path,label\na.jpg,x\n")
    line = ["fit", "--data.dataset_classes.train=imgcls.CsvImageDataset", f"--data.dataset_classes.train.csv={csv}"]
    code, said = fails([*line, f"--model.model_name={trainer.model}", "--model.pretrained=false"], capsys)
    assert code == 2
    assert said.startswith(f"imgcls: {csv}: row 2: no file 'a.jpg' (paths are relative to")
