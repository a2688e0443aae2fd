"""The training and evaluation pipelines of a run, from the configured lists or presets."""

import logging
from collections.abc import Callable
from typing import get_args

import numpy as np

from imgcls.config.class_path import Spec
from imgcls.data.config import KEY, Augmentations
from imgcls.data.transforms.build import build_pipeline, build_transform, find_normalization
from imgcls.data.transforms.model_transforms import eval_specs, less_cropped, resize_spec
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.data.transforms.presets import DEFAULT_PRESET, EvalPreset, Preset, preset_specs
from imgcls.errors import ConfigError
from imgcls.images import Pixels
from imgcls.types import Normalization, Preprocessing

log = logging.getLogger(__name__)

_SEEDS = 8  # to detect randomness: a flip with p 0.5 does nothing for half of the seeds


class Pipelines:
    """Makes the training and evaluation pipelines.

    Args:
        lists: The configured lists or presets.
        expected: Returns the model's preprocessing, where a list depends on it; called late, since the model is built
            after the data.
        image_size: Height and width in pixels that the configuration asks for; None leaves them to the lists and the
            model.

    Raises:
        ConfigError: If the name of a preset is unknown.
    """

    def __init__(
        self, lists: Augmentations, expected: Callable[[], Preprocessing], image_size: tuple[int, int] | None = None
    ) -> None:
        self.lists = lists
        self._expected = expected
        self._image_size = image_size
        self._resized: set[str] = set()
        self.sizes: dict[str, tuple[int, int]] = {}
        """Height and width in pixels of the images of ``train`` and ``eval``, once their pipeline is made."""
        self._warned_of_randomness = False
        for stage, names in (("train", get_args(Preset)), ("eval", get_args(EvalPreset))):
            given = getattr(lists, stage)
            if isinstance(given, str) and given not in names:
                raise ConfigError(f"{_where(stage)} must be a list or one of {', '.join(names)}, got {given!r}")

    def normalization(self) -> Normalization | None:
        """Return the normalisation of the lists; None if the model normalises.

        Raises:
            ConfigError: If the lists differ.
        """
        train, evaluation = (find_normalization(self._explicit.get(key), _where(key)) for key in ("train", "eval"))
        if train and evaluation and train != evaluation:
            raise ConfigError(f"{KEY}.augmentations: train and eval must normalise alike, got {train} and {evaluation}")
        return train or evaluation

    def check(self) -> None:
        """Build the transforms of the lists.

        Raises:
            ConfigError: Names the transform that cannot be built.
        """
        for stage, specs in self._explicit.items():
            build_pipeline(specs, _where(stage))

    @property
    def _explicit(self) -> dict[str, list[Spec]]:
        """The lists that are not presets, by stage."""
        return {stage: specs for stage, specs in vars(self.lists).items() if isinstance(specs, list)}

    def eval_specs(self) -> list[Spec]:
        """Return the evaluation transforms as plain values; the model's if the configuration has none."""
        given = self.lists.eval
        if isinstance(given, list):
            return given
        expected = self._expected()
        return eval_specs(expected if given == "pretrained" else less_cropped(expected))

    def complete_eval_specs(self, image: Pixels) -> list[Spec]:
        """Return the evaluation transforms, with the resize in front of a list that does not fix the size of images."""
        specs = self.eval_specs()
        is_preceded = len(self.make("eval", image).named) > len(specs)
        return [resize_spec(self._expected()), *specs] if is_preceded else specs

    def make(self, stage: str, image: Pixels) -> Pipeline:
        """Make the pipeline of ``train`` or ``eval`` with outputs of one size, preceded by a resize if needed.

        It is checked with one of the images.

        Raises:
            ConfigError: If a transform fails, the output has another size than ``image_size``, or sizes differ even
                with the resize.
        """
        specs = self._train_specs() if stage == "train" else self.eval_specs()
        pipeline = build_pipeline(specs, _where(stage))
        size = pipeline.check(image) if stage in self._explicit else pipeline.check(image, draws=1)
        if stage == "eval":
            self._warn_of_randomness(pipeline, image)
        elif pipeline.is_foreign and not np.array_equal(pipeline(image, 0), pipeline(image, 0)):
            log.warning(
                "%s: uses its own random generator, so that runs are not reproducible; use random, numpy.random or "
                "torch, which are seeded for each image",
                _where(stage),
            )
        if size is not None:
            self._check_size(size, stage)
            self.sizes[stage] = size
            return pipeline
        resize = resize_spec(self._expected())
        resized = Pipeline({_shown(resize): build_transform(resize, _where(stage)), **pipeline.named}, _where(stage))
        if (size := resized.check(image)) is None:
            raise ConfigError(
                f"{_where(stage)}: returns images of different sizes, even after {_shown(resize)}; end the list with "
                "albumentations.Resize"
            )
        self.sizes[stage] = size
        if stage not in self._resized:
            self._resized.add(stage)
            log.info("%s: does not fix the image size; prepending %s", _where(stage), _shown(resize))
        return resized

    def _check_size(self, size: tuple[int, int], stage: str) -> None:
        """Refuse a list whose images have another size than the configuration asks for."""
        if self._image_size not in (None, size):
            (height, width), (wanted_height, wanted_width) = size, self._image_size
            raise ConfigError(
                f"{KEY}.image_size is {wanted_height} x {wanted_width}, but {_where(stage)} returns images of {height} "
                f"x {width} pixels; set both alike, or leave image_size out and the list as it is"
            )

    def _warn_of_randomness(self, pipeline: Pipeline, image: Pixels) -> None:
        """Warn once if evaluation is random."""
        if self._warned_of_randomness:
            return
        first = pipeline(image, 0)
        if any(not np.array_equal(first, pipeline(image, seed)) for seed in range(1, _SEEDS)):
            self._warned_of_randomness = True
            log.warning("%s: is random; an image's prediction depends on its index in the dataset", _where("eval"))

    def _train_specs(self) -> list[Spec]:
        given = self.lists.train
        if given is None or isinstance(given, str):
            return preset_specs(given or DEFAULT_PRESET, self._expected())
        return given


def _shown(spec: Spec) -> str:
    name = spec["class_path"].rpartition(".")[2]
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in spec.get('init_args', {}).items())})"


def _where(stage: str) -> str:
    return f"{KEY}.augmentations.{stage}"
