"""Explain the predictions of a classifier: a heat map for each image, in the frame of the photo."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from imgcls.data.loading.batches import augment
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.datasets.labels import SEPARATOR
from imgcls.errors import ConfigError, ImageError, known_names
from imgcls.explain.find_layer import Layer
from imgcls.explain.heat_maps import Heat, HeatMaps
from imgcls.explain.overlay import overlay, panel_scale, side_by_side
from imgcls.explain.seen_photo import SeenPhoto
from imgcls.explain.smooth_grad import SIDE
from imgcls.images import Pixels
from imgcls.predictions.predicted_texts import PredictedTexts, predicted_texts
from imgcls.runtime.seeding import derive_seed

_BATCH = 16


@dataclass(frozen=True)
class Explanation:
    """Which parts of an image speak for a class.

    Args:
        path: The file; "" for an array.
        prediction: As in predictions.csv.
        probability: As in predictions.csv.
        target: The class that the heat map is for.
        target_probability: Its probability, 0 to 1.
        against: The class that it is set against; "" for none.
        photo: The image, uint8 ``(H, W, 3)``, its longer side between 224 and 800 pixels.
        heat_map: ``(H, W)`` float32, 0 to 1: what speaks for the target; NaN where the network does not see the photo.
        layer: The layer of the network that the map is taken from; "pixels" if no layer has a usable spatial
            grid.
        grid: Rows and columns of the heat map before it is placed on the photo.
        shows_input: Whether ``photo`` is the network's input, since where that is in the photo is unknown.
        error: Why there is no explanation; "" if there is one. Then the other values are empty.
    """

    path: str
    prediction: str = ""
    probability: str = ""
    target: str = ""
    target_probability: float = float("nan")
    against: str = ""
    photo: Pixels = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    heat_map: Heat = field(default_factory=lambda: np.empty((0, 0), np.float32))
    layer: str = ""
    grid: tuple[int, int] = (0, 0)
    shows_input: bool = False
    error: str = ""

    def overlay(self) -> Pixels:
        """Return the photo with the heat map laid over it, uint8 ``(H, W, 3)``."""
        return overlay(self.photo, self.heat_map)

    def panel(self) -> Image.Image:
        """Return the photo and its overlay side by side, with a title."""
        is_predicted = self.target == self.prediction  # whose probability is in the first line
        share = "" if is_predicted else f" ({self.target_probability:.1%})"
        than = f" rather than {self.against}" if self.against else ""
        lines = [
            f"{self.prediction or 'no class'}  {self.probability and _percent(self.probability)}".rstrip(),
            f"in colour: what speaks for {self.target}{share}{than}",
        ]
        return side_by_side(self.photo, self.overlay(), "\n".join(lines))


class Question(NamedTuple):
    """What is to be explained.

    Args:
        target: The class; None for the predicted one, of multi-label data the most probable one.
        against: The class that it is set against; None for none.
    """

    target: int | None
    against: int | None

    @classmethod
    def of(cls, target: str | None, against: str | None, class_names: Sequence[str]) -> "Question":
        """Return a question about classes given by name.

        Raises:
            ConfigError: If there is no such class, or both are the same.
        """
        if target is not None and target == against:
            raise ConfigError(f"target and against must differ, got {target!r} for both")
        indices = [_index(name, value, class_names) for name, value in (("target", target), ("against", against))]
        return cls(*indices)

    def about(self, probs: NDArray[np.float32]) -> tuple[int, int | None]:
        """Return the class of an image with these probabilities, and what it is set against."""
        target = int(probs.argmax()) if self.target is None else self.target
        return target, None if self.against == target else self.against


@dataclass(frozen=True)
class Explainer:
    """Explains images.

    Args:
        maps: The heat maps of the model.
        split: The images.
        paths: Their paths, "" for none.
        pipeline: The evaluation transforms.
        seed: For transforms that are random.
        min_side: Shorter side in pixels to which decoding may shrink an image; None: exactly.
        question: What is to be explained.
    """

    maps: HeatMaps
    split: Split
    paths: Sequence[str]
    pipeline: Pipeline
    seed: int
    min_side: int | None
    question: Question

    def explain(self) -> Iterator[Explanation]:
        """Yield the explanation of each image, in their order."""
        indices = range(len(self.split))
        for start in indices[::_BATCH]:
            part = indices[start : start + _BATCH]
            read = [self._read(index) for index in part]
            found = self._explained([each for each in read if isinstance(each, SeenPhoto)])
            for index, each in zip(part, read, strict=True):
                explanation = next(found) if isinstance(each, SeenPhoto) else Explanation("", error=each)
                yield replace(explanation, path=self.paths[index])

    def _read(self, index: int) -> SeenPhoto | str:
        """Return an image, or why it cannot be read."""
        path = self.split.path(index)
        try:
            photo = self.split.read(index, self.min_side)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: ")
        steps, where = partial(self.pipeline, seed=derive_seed(self.seed, 0, index)), self.pipeline.where
        return SeenPhoto.of(photo, lambda image: augment(steps, image, path, where), self.maps.model.preprocessing)

    def _explained(self, photos: Sequence[SeenPhoto]) -> Iterator[Explanation]:
        """Yield explanations without a path."""
        if not photos:
            return
        model = self.maps.model
        images = torch.from_numpy(np.stack([each.pixels for each in photos])).permute(0, 3, 1, 2).to(model.device)
        probs = self._probs(images)
        texts = predicted_texts(torch.from_numpy(probs), [""] * len(photos), model.class_names, model.thresholds)
        pairs = [self.question.about(row) for row in probs]
        maps = self.maps.explain(images, [target for target, _ in pairs], [against for _, against in pairs])
        layer = self.maps.layer((images.shape[2], images.shape[3]))
        for each in zip(photos, maps, texts, probs, pairs, strict=True):
            yield self._explanation(layer, *each)

    def _probs(self, images: torch.Tensor) -> NDArray[np.float32]:
        """Return the probabilities ``(B, classes)``, as ``predict`` does."""
        model = self.maps.model.eval()
        model.tta, model.uncalibrated = "none", False
        with torch.inference_mode():
            probs = model.predict_step({"image": images, "label": torch.empty(0), "path": []}, 0)
        return probs.float().cpu().numpy()

    def _explanation(
        self,
        layer: Layer | None,
        photo: SeenPhoto,
        heat: Heat,
        texts: PredictedTexts,
        probs: NDArray[np.float32],
        classes: tuple[int, int | None],
    ) -> Explanation:
        if texts.error:
            return Explanation("", error=texts.error)
        names, (target, against) = self.maps.model.class_names, classes
        drawn, placed = photo.with_heat(heat, panel_scale)
        return Explanation(
            "",
            prediction=texts.prediction,
            probability=texts.probability,
            target=names[target],
            target_probability=float(probs[target]),
            against="" if against is None else names[against],
            photo=drawn,
            heat_map=placed,
            layer="pixels" if layer is None else layer.name,
            grid=(SIDE, SIDE) if layer is None else (layer.grid.height, layer.grid.width),
            shows_input=photo.frame is None,
        )


def _index(option: str, name: str | None, class_names: Sequence[str]) -> int | None:
    if name is None:
        return None
    if name not in class_names:
        raise ConfigError(f"{option}: the model has no class {name!r}{known_names(name, class_names)}")
    return class_names.index(name)


def _percent(probability: str) -> str:
    return SEPARATOR.join(f"{float(value):.1%}" for value in probability.split(SEPARATOR))
