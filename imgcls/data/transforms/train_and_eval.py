"""From the lists of a configuration, or the presets that stand for them, to the pipelines of a run."""

import logging
from collections.abc import Callable
from typing import get_args

import numpy as np

from imgcls.config.class_path import Spec
from imgcls.data.config import KEY, Augmentations
from imgcls.data.transforms.pipeline import (
    Pipeline,
    build_item,
    build_pipeline,
    eval_specs,
    find_normalization,
    resize_spec,
)
from imgcls.data.transforms.presets import DEFAULT_PRESET, EvalPreset, Preset, less_cropped, preset_specs
from imgcls.errors import ConfigError
from imgcls.images import Pixels
from imgcls.types import Normalization, Preprocessing

log = logging.getLogger(__name__)

_UNSEEDED = (
    "draws from a random generator of its own, and differs from run to run; draw from random, numpy.random or torch, "
    "which are seeded for each image"
)
_SEEDS = 8  # by which a list is tried: half of the flips with p 0.5 do nothing


class Pipelines:
    """Makes the pipelines of training and evaluation.

    Args:
        lists: What is configured.
        expected: Gives what the model expects, where a list leaves it open; asked when it is needed, for the model is
            made after the data.

    Raises:
        ConfigError: If a name stands for no list.
    """

    def __init__(self, lists: Augmentations, expected: Callable[[], Preprocessing]) -> None:
        self.lists = lists
        self._expected = expected
        self._resized: set[str] = set()
        self._doubted = False
        for stage, names in (("train", get_args(Preset)), ("eval", get_args(EvalPreset))):
            given = getattr(lists, stage)
            if isinstance(given, str) and given not in names:
                raise ConfigError(f"{_where(stage)}: {given!r} is no name of a list; known: {', '.join(names)}")

    def normalization(self) -> Normalization | None:
        """Return how the lists normalise; None where they leave it to the model.

        Raises:
            ConfigError: If they do it in two ways.
        """
        train, evaluation = (find_normalization(self._given.get(stage), _where(stage)) for stage in ("train", "eval"))
        if train and evaluation and train != evaluation:
            raise ConfigError(
                f"{KEY}.augmentations: train normalises with {train}, eval with {evaluation}; they must be the same"
            )
        return train or evaluation

    def check(self) -> None:
        """Build the items of the lists.

        Raises:
            ConfigError: Names the item that cannot be built.
        """
        for stage, specs in self._given.items():
            build_pipeline(specs, _where(stage))

    @property
    def _given(self) -> dict[str, list[Spec]]:
        """The lists that are spelt out, by stage."""
        return {stage: specs for stage, specs in vars(self.lists).items() if isinstance(specs, list)}

    def eval_specs(self) -> list[Spec]:
        """Return the evaluation steps as plain values, those that suit the model where the configuration has none."""
        given = self.lists.eval
        if isinstance(given, list):
            return given
        expected = self._expected()
        return eval_specs(expected if given == "pretrained" else less_cropped(expected))

    def make(self, stage: str, image: Pixels) -> Pipeline:
        """Make a pipeline of one size, with a resize in front where the list does not fix it.

        Args:
            stage: ``train`` or ``eval``.
            image: One of the images, to try it on.

        Raises:
            ConfigError: If an item fails, or images differ in size with the resize, too.
        """
        specs = self._train_specs() if stage == "train" else self.eval_specs()
        pipeline = build_pipeline(specs, _where(stage))
        size = pipeline.check(image) if stage in self._given else pipeline.check(image, draws=1)
        if stage == "eval":
            self._doubt(pipeline, image)
        elif pipeline.is_foreign and not np.array_equal(pipeline(image, 0), pipeline(image, 0)):
            log.warning("%s: %s", _where(stage), _UNSEEDED)
        if size is not None:
            return pipeline
        resize = resize_spec(self._expected())
        resized = Pipeline({_shown(resize): build_item(resize, _where(stage)), **pipeline.named}, _where(stage))
        if resized.check(image) is None:
            raise ConfigError(
                f"{_where(stage)}: gives images of several sizes, also with {_shown(resize)} in front; end the list "
                "with albumentations.Resize"
            )
        if stage not in self._resized:
            self._resized.add(stage)
            log.info("%s: does not fix the image size; %s is put in front", _where(stage), _shown(resize))
        return resized

    def _doubt(self, pipeline: Pipeline, image: Pixels) -> None:
        """Say that evaluation draws at random, so that a prediction follows from an image's place in the data, too."""
        if self._doubted:
            return
        first = pipeline(image, 0)
        if any(not np.array_equal(first, pipeline(image, seed)) for seed in range(1, _SEEDS)):
            self._doubted = True
            log.warning(
                "%s: draws at random; an image's prediction depends on its place among the others", _where("eval")
            )

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
