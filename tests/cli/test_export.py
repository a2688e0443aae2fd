"""The command line of export: what is refused before any heavy import, and the forms that are short."""

from pathlib import Path

import pytest

from imgcls.cli.main import main
from imgcls.cli.positional_arguments import expand
from tests.helpers.runs import fails

REFUSED = {  # command line -> what is said
    "": "such as runs/cats/version_0/checkpoints/best.ckpt; type: imgcls export runs/cats/version_0",
    "--ckpt_path bset.ckpt": "--ckpt_path bset.ckpt: no such file; did you mean 'best.ckpt'?",
    "bset.ckpt": "'bset.ckpt': no such file or folder; did you mean 'best.ckpt'?",
    "best.ckpt --format onx": "--format must be 'hf', 'onnx' or 'torch', got 'onx'; did you mean 'onnx'?",
    "best.ckpt --format": "--format needs a value; type --format hf",
    "best.ckpt --batched": "--batched belongs to --format onnx; --format hf does not have it",
    "best.ckpt --format torch --quantize": "--quantize belongs to --format onnx; --format torch does not have it",
    "best.ckpt --from_network_input": "--from_network_input belongs to --format onnx or --format torch; --format hf",
    "best.ckpt --data.batch_size 3": "export uses the model and the preprocessing of the checkpoint; leave --data.",
    "best.ckpt --trainer.precision 16": "leave --trainer.precision out",
    "best.ckpt --fromat onnx": "type: imgcls export best.ckpt --format onnx",
    "best.ckpt --output old": "old exists; add --overwrite to replace it, or --output FOLDER to write another",
    "best.ckpt --output photos --overwrite": "--output photos: exists and is not the folder of an export; give another",
    "best.ckpt --output best.ckpt --overwrite": "--output best.ckpt: exists and is not the folder of an export",
    "runs/cats/version_0": "runs/cats/version_0/export/hf exists; add --overwrite to replace it",
    "runs": "'runs' contains run folders; did you mean 'runs/cats/version_0'?",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a checkpoint, a run, photos and two exported folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/cats/version_0/checkpoints", "runs/cats/version_0/export/hf", "photos", "old"):
        Path(name).mkdir(parents=True)
    for name in ("best.ckpt", "runs/cats/version_0/checkpoints/best.ckpt", "photos/a.jpg", "old/export.json"):
        Path(name).touch()
    Path("runs/cats/version_0/export/hf/export.json").touch()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", REFUSED)
def test_wrong_command_line_is_refused_at_once(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imgcls.cli.main._import_program", lambda **_: pytest.fail("nothing was refused"))
    code, error = fails(["export", *line.split()], capsys)
    assert (code, REFUSED[line] in error) == (2, True), error


@pytest.mark.usefixtures("folder")
def test_empty_folder_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr("imgcls.cli.main._import_program", lambda **_: lambda arguments, **_: ran.append(arguments))
    Path("new").mkdir()
    main(["export", "best.ckpt", "--output", "new"])
    assert ran == [["export", "--ckpt_path", "best.ckpt", "--output", "new"]]


@pytest.mark.usefixtures("folder")
def test_short_forms() -> None:
    best = "runs/cats/version_0/checkpoints/best.ckpt"
    line, notes = expand(["export", "runs/cats/version_0", "photos", "photos/a.jpg", "--format", "onnx"])
    assert line == ["export", "--ckpt_path", best, "--images", "photos", "--images", "photos/a.jpg", "--format", "onnx"]
    assert notes == [
        f"Reading runs/cats/version_0 as --ckpt_path {best}",
        "Reading photos, photos/a.jpg as --images",
    ]
