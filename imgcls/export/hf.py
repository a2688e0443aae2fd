"""A folder that transformers loads alone: weights, config and image processor."""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from imgcls.errors import ImageError
from imgcls.export.formats import ExportOptions, Written
from imgcls.export.hf_network import own_network
from imgcls.export.hf_processor import image_processor, read_geometry, timm_settings
from imgcls.images import load_image
from imgcls.inference.classifier import Classifier
from imgcls.models.huggingface.hub import quiet_transformers

_TOLERANCE = 1e-3
_PROGRAM = Path(__file__).with_name("run_pipeline.py")
_WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}  # modes of Pillow
_MAY_HAVE_KEY = {"P", "L", "RGB"}  # modes in which one colour may be transparent
_USAGE = """In this folder, with `pip install transformers torch torchvision pillow{more}`:

```python
from transformers import pipeline

classify = pipeline("image-classification", model=".")
print(classify("photo.jpg"))
```"""
_NOTES = [
    "transformers reads two kinds of files differently from imgcls, so predictions for them differ: transparent images "
    "(imgcls lays them over white, transformers drops the transparency) and 16-bit images (imgcls keeps the high byte, "
    "transformers cuts values off at 255)."
]


def write(classifier: Classifier, folder: Path, options: ExportOptions) -> Written:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.

    Args:
        classifier: The classifier, in float32.
        folder: An empty folder.
        options: Without effect.

    Raises:
        ConfigError: If transformers cannot express the preprocessing, the temperature or the size of the images.
    """
    expected = classifier.model.preprocessing
    geometry = read_geometry(classifier.evaluation_steps)
    network = own_network(classifier.model, classifier.image_size)
    is_timm = network.config.model_type == "timm_wrapper"  # whose image processor is made from config.json
    if is_timm:
        network.config.pretrained_cfg = timm_settings(geometry, expected.mean, expected.std)
    else:
        image_processor(geometry, expected.mean, expected.std).save_pretrained(folder)
    with quiet_transformers():
        network.save_pretrained(folder)
    (folder / SAFE_WEIGHTS_NAME).chmod((folder / CONFIG_NAME).stat().st_mode)  # safetensors: readable by its owner
    # -P: Python would find the modules beside the program, which have the names of packages
    command = [sys.executable, "-P", str(_PROGRAM), str(folder)]
    return Written(command, _TOLERANCE, _USAGE.format(more=" timm" * is_timm), _NOTES, reads_otherwise)


def reads_otherwise(path: str) -> str:
    """Return why transformers reads other pixels of a file than imgcls; "" if it does not.

    Its ``load_image`` is Pillow's ``convert("RGB")``, which drops transparency and cuts 16-bit values off at 255.
    """
    try:
        with Image.open(path) as image:
            if image.mode in _WITH_ALPHA or (image.mode in _MAY_HAVE_KEY and "transparency" in image.info):
                return "transparent" if np.asarray(image.convert("RGBA"))[..., 3].min() < 255 else ""
            return "16-bit" if image.mode.startswith(("I", "F")) else ""
    except (OSError, ValueError, SyntaxError):
        with suppress(ImageError):
            load_image(path)
            return "Pillow alone cannot open it"
        return ""  # nor can imgcls
