"""Real images, real weights, the shipped configuration: fit, test and predict agree."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import f1_score

from imgcls.cli.main import main
from tests.helpers.real_data import write_efficientnet_lite0, write_elpv
from tests.helpers.runs import table_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_elpv_figures_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_elpv(tmp_path / "data/elpv")
    write_efficientnet_lite0(tmp_path / "data/efficientnet_lite0")
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(ROOT / "configs/elpv.yaml"), "--trainer.max_epochs=3"])
    output = capsys.readouterr().out
    fitted = {name: values[1] for name, values in table_of(output).items()}
    checkpoint = Path(output.splitlines()[-1]) / "checkpoints/best.ckpt"
    assert float(fitted["accuracy"]) > 0.8

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    main(["test", "--ckpt_path", str(checkpoint)])
    assert {name: values[0] for name, values in table_of(capsys.readouterr().out).items()} == fitted
    shutil.rmtree(tmp_path / "data/elpv/train")
    shutil.rmtree(tmp_path / "data/efficientnet_lite0")
    images = str(tmp_path / "data/elpv/test")
    main(["predict", "--ckpt_path", str(checkpoint), "--images", images, "--output", "p.csv"])
    table = pd.read_csv("p.csv")
    truth = table["path"].map(lambda path: Path(path).parent.name)
    assert f"{(table['prediction'] == truth).mean():.4f}" == fitted["accuracy"]
    assert f"{f1_score(truth, table['prediction'], average='macro'):.4f}" == fitted["f1_score"]
