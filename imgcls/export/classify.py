"""Classify images with a model that `imgcls export` wrote. imgcls is not needed.

    pip install numpy pillow onnxruntime        # for model.onnx
    pip install numpy pillow torch              # for model.pt2

    python classify.py photo.jpg more_photos/
    python classify.py photos/ --output predictions.csv

The model resizes, crops and normalises by itself. What is left to do before it is here: `load_image` returns the pixels
that `imgcls predict` sees of a file, and `Model` returns the probabilities of them. Both may be copied.
"""

import argparse
import csv
import json
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MODELS = ("model.onnx", "model.pt2")  # beside this file; the first one that is there
MAX_PIXELS = 89_478_485  # width x height; a larger image may be a decompression bomb

_FORMATS = ["AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]
_ORIENTATION, _BITS, _SAMPLE_FORMAT, _PHOTOMETRIC = 0x0112, 258, 339, 262  # tags of EXIF and TIFF
_UPRIGHT: dict[int, Callable[[Any], Any]] = {  # EXIF orientation -> the operation that makes the image upright
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x.transpose(1, 0, 2), 2),
    8: lambda x: np.rot90(x),
}
_DAMAGED = (  # what Pillow's decoders raise on a damaged file
    *(OSError, ValueError, SyntaxError, EOFError, ArithmeticError, AssertionError, LookupError, TypeError),
    *(AttributeError, RuntimeError, MemoryError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would evaluate such a text


def load_image(path: str) -> NDArray[np.uint8]:
    """Read an image file as upright RGB, uint8, (height, width, 3).

    EXIF orientation is applied, 16-bit channels keep their high byte, CMYK and palettes are converted, transparency is
    laid over white, the first frame of an animation is used, and colour profiles are ignored.

    Raises:
        ValueError: If it is no file, or has other pixels than 8 or 16 bits; a damaged file also raises other types.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        raise ValueError("is empty" if stat.S_ISREG(status.st_mode) else "is not a file")
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(file, formats=_FORMATS)
        if image.format == "PNG":
            image.verify()  # checksums, which decoding does not look at
            image = Image.open(file, formats=["PNG"])
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        bits, signed = max(tags.get(_BITS, (1,))), 2 in tags.get(_SAMPLE_FORMAT, ())
        if image.mode == "F" or bits > 16 or signed:
            raise ValueError("has floating-point, signed or 32-bit pixels; 8 or 16 bits are supported")
        image.load()  # before EXIF is read: a PNG may have it behind the pixels, and Pillow turns a TIFF itself
        pixels = _rgb(image, tags)
        try:
            orientation = Image.Image.getexif(image).get(_ORIENTATION)
        except _DAMAGED:  # broken EXIF counts as upright
            orientation = None
    turn = _UPRIGHT.get(orientation or 1)
    return np.ascontiguousarray(pixels if turn is None else turn(pixels))


def _rgb(image: Image.Image, tags: Any) -> NDArray[np.uint8]:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _high_byte(image, tags)
    if not image.has_transparency_data:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 255:  # Pillow reduces the pixels to 8 bits, but not this
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def _high_byte(image: Image.Image, tags: Any) -> NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise ValueError("has 32-bit pixels; 8 or 16 bits are supported")
    high = (values >> (4 if tags.get(_BITS) == (12,) else 8)).astype(np.uint8)
    if tags and tags.get(_PHOTOMETRIC) == 0:  # white is zero
        high = ~high
    high[values == image.info.get("transparency", -1)] = 255
    return np.repeat(high[:, :, None], 3, axis=2)


class Model:
    """An exported model.

    Args:
        file: model.onnx, run by onnxruntime, or model.pt2, run by torch.
    """

    def __init__(self, file: str | Path) -> None:
        file = Path(file)
        if file.suffix == ".pt2":
            self._open_torch(file)
        else:
            self._open_onnx(file)

    def _open_onnx(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        [given] = session.get_inputs()
        self._describe(session.get_modelmeta().custom_metadata_map, batched=len(given.shape) == 4)
        self._run: Callable[[NDArray[np.uint8]], Any] = lambda pixels: session.run(None, {given.name: pixels})[0]

    def _open_torch(self, file: Path) -> None:
        import torch

        texts = {"description": ""}
        program = torch.export.load(str(file), extra_files=texts)
        module = program.module()
        self._describe(json.loads(texts["description"]), batched=program.example_inputs[0][0].ndim == 4)

        self._run = torch.inference_mode()(lambda pixels: module(torch.from_numpy(pixels)).numpy())

    def _describe(self, texts: dict[str, str], batched: bool) -> None:
        values = {key: json.loads(text) for key, text in texts.items()}
        self.class_names: list[str] = values["class_names"]
        self.thresholds: list[float] | None = values["thresholds"]  # None: one class per image
        self.size = tuple(values["image_size"]) if batched else None  # None: images of any size

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each class for an image, uint8, (height, width, 3), RGB."""
        if self.size is not None and pixels.shape[:2] != self.size:
            found, wanted = (f"{height} x {width}" for height, width in (pixels.shape[:2], self.size))
            raise ValueError(f"has {found} pixels; this model has no resize and crop, and takes {wanted}")
        given = pixels if self.size is None else np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
        return np.asarray(self._run(given), np.float32).reshape(-1)

    def chosen(self, probabilities: NDArray[np.float32]) -> list[int]:
        """Return the index of the predicted class; multi-label: of all classes above their threshold."""
        if self.thresholds is None:
            return [int(probabilities.argmax())]
        return [int(index) for index in np.flatnonzero(probabilities > np.array(self.thresholds, np.float32))]

    def answer(self, probabilities: NDArray[np.float32]) -> tuple[str, str]:
        """Return the predicted class and its probability; multi-label: all of them, joined by ``;``."""
        named = sorted((self.class_names[index], str(probabilities[index])) for index in self.chosen(probabilities))
        probability = ";".join(text for _, text in named)
        if self.thresholds is None:
            return named[0][0], probability
        names = [name for name, _ in named]
        text = ";".join(names)
        is_plain = [part.strip() for part in text.split(";") if part] == names and not _is_json_list(text)
        return text if is_plain else json.dumps(names, ensure_ascii=False), probability

    def row(self, path: str) -> list[str]:
        """Return the row of a file: path, class, probability, all probabilities, and why it could not be read."""
        try:
            probabilities = self(load_image(path))
        except _DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, UnidentifiedImageError):  # its text names the open file
                reason = "is not an image, or of an unknown format"
            elif isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            return [path, "", "", *("" for _ in self.class_names), reason]
        return [path, *self.answer(probabilities), *map(str, probabilities), ""]


def _is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def find_images(photos: list[str], listed: str | None) -> Iterator[str]:
    """Yield files, the files below folders in sorted order, and the lines of a file of paths."""
    for photo in photos:
        below = (found for found in sorted(Path(photo).rglob("*")) if found.is_file() and found.name[0] != ".")
        yield from map(str, below) if Path(photo).is_dir() else [photo]
    if listed:
        text = Path(listed).read_text(encoding="utf-8", errors="surrogateescape")
        yield from filter(None, text.split("\n"))


def main() -> None:
    """Classify the images of the command line."""
    parser = argparse.ArgumentParser(description="Classify images with an exported model.")
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="an image file, or a folder of images")
    parser.add_argument("--list", metavar="FILE", help="a text file with one path per line")
    parser.add_argument("--output", metavar="CSV", help="write the probabilities of all classes to this file")
    parser.add_argument(
        "--model", metavar="FILE", type=Path, help="by default model.onnx or model.pt2 beside this file"
    )
    given = parser.parse_args()
    if not given.photos and not given.list:
        parser.error("name an image, a folder of images, or --list FILE")
    beside = [file for name in MODELS if (file := Path(__file__).resolve().with_name(name)).is_file()]
    if given.model is None and not beside:
        parser.error(f"there is no {' or '.join(MODELS)} beside {__file__}; add --model FILE")
    model = Model(given.model or beside[0])
    rows = (model.row(path) for path in find_images(given.photos, given.list))
    if not given.output:
        for path, prediction, probability, *_, error in rows:
            shown = ";".join(f"{float(value):.4f}" for value in probability.split(";") if value)
            print(f"{path}  {error or prediction}  {shown}".rstrip(), flush=True)
        return
    with open(given.output, "w", newline="", encoding="utf-8", errors="surrogateescape") as output:
        table = csv.writer(output)
        columns = (f"prob_{name}" for name in model.class_names)
        table.writerow(["path", "prediction", "probability", *columns, "error"])
        for path, prediction, *rest in rows:
            safe = f"./{path}" if path.startswith(_FORMULA_STARTS) else path
            table.writerow([safe, f"'{prediction}" if prediction.startswith(_FORMULA_STARTS) else prediction, *rest])


if __name__ == "__main__":
    main()
