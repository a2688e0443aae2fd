"""A folder that transformers loads alone: weights, config and image processor."""

import sys
from pathlib import Path
from typing import Any

import transformers
from PIL import Image

from imgcls.errors import ImageError
from imgcls.export.formats import ExportOptions, Written
from imgcls.export.hf_network import own_network
from imgcls.export.hf_processor import image_processor, read_geometry, timm_settings
from imgcls.images import load_image
from imgcls.inference.classifier import Classifier

_TOLERANCE = 1e-3  # one level of a few pixels; the decoders of JPEG may differ by it
_PROGRAM = Path(__file__).with_name("run_pipeline.py")
_USAGE = """In this folder, with `pip install transformers torch torchvision pillow`:

```python
from transformers import pipeline

classify = pipeline("image-classification", model=".")
print(classify("photo.jpg"))
```"""
_NOTES = [
    "transformers reads two kinds of files otherwise than imgcls, so that their predictions differ: transparent images "
    "(imgcls lays them over white, transformers drops the transparency) and 16-bit images (imgcls keeps the high byte, "
    "transformers cuts values off at 255)."
]
_WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}  # modes of Pillow


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
    if network.config.model_type == "timm_wrapper":  # whose image processor is made from config.json
        network.config.pretrained_cfg = timm_settings(geometry, expected.mean, expected.std)
    else:
        image_processor(geometry, expected.mean, expected.std).save_pretrained(folder)
    network.save_pretrained(folder)
    details: dict[str, Any] = {"transformers": transformers.__version__}
    # -P: Python would find the modules beside the program, which have the names of packages
    command = [sys.executable, "-P", str(_PROGRAM), str(folder)]
    return Written(command, _TOLERANCE, _USAGE, _NOTES, reads_otherwise, details)


def reads_otherwise(path: str) -> str:
    """Return why transformers reads other pixels of a file than imgcls; "" if it does not.

    Its ``load_image`` is Pillow's ``convert("RGB")``, which drops transparency and cuts 16-bit values off at 255.
    """
    try:
        with Image.open(path) as image:
            mode, has_key = image.mode, "transparency" in image.info
            if mode in _USAGE = """In this folder, with `pip install transformers torch torchvision pillow`:

```python
from transformers import pipeline

classify = pipeline("image-classification", model=".")
print(classify("photo.jpg"))
```"""
_NOTES = [
    "transformers reads two kinds of files otherwise than imgcls, so that their predictions differ: transparent images "
    "(imgcls lays them over white, transformers drops the transparency) and 16-bit images (imgcls keeps the high byte, "
    "transformers cuts values off at 255)."
]
_WITH_ALPHA or (has_key and mode in {"P", "RGB", "L"}):
                least, _ = image.convert("RGBA").getchannel("A").getextrema()
                return "transparent" if least < 255 else ""  # type: ignore[operator]  # one channel: two numbers
            return "16-bit" if mode.startswith(("I", "F")) else ""
    except (OSError, ValueError, SyntaxError):
        pass
    try:
        load_image(path)
    except ImageError:
        return ""  # both fail
    return "not opened by Pillow"
