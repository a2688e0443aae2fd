"""A trained classifier, applied to images as ``imgcls predict`` applies it."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Literal, get_args, overload

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from imgcls.commands.guarantees import find_selection
from imgcls.commands.resume import Start
from imgcls.commands.trainer import evaluation_precision
from imgcls.config.class_path import Spec
from imgcls.data.config import Decode
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.loading.batches import SplitBatches, example
from imgcls.data.loading.loaders import BatchLoader, loader_arguments
from imgcls.data.loading.samplers import KeyedSampler
from imgcls.data.loading.workers import naming_files
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.needed_size import needed_side
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.data.transforms.train_and_eval import Pipelines
from imgcls.datasets.dataset import ImageDataset
from imgcls.errors import ConfigError, in_lines, listed
from imgcls.explain.heat_maps import HeatMaps
from imgcls.inference.explanations import Explainer, Explanation, Question
from imgcls.inference.inputs import InputDataset, Inputs
from imgcls.models.classifier import ImageClassifier
from imgcls.models.tta import TTA
from imgcls.predictions.predicted_texts import Selection, predicted_texts
from imgcls.predictions.prediction_rows import Columns, check_top_k, top_classes
from imgcls.runtime.malloc import keep_freed_memory
from imgcls.types import Batch

log = logging.getLogger(__name__)

_FEW = 5  # class names that ``repr`` shows
_LARGE = (2048, 2048, 3)  # shape of an image that any crop of evaluation transforms fits into
_SEED = 42  # of a command, unless it is configured


class Classifier:
    """A trained classifier; ``imgcls.load`` makes it.

    Args:
        model: The model, with its weights.
        data: Evaluation transforms and loader settings of the run.
        start: The checkpoint.
        device: Where the model computes.
        precision: Number format of the computation, as Lightning names it; None for float32, or that of the weights.
    """

    def __init__(
        self,
        model: ImageClassifier,
        data: ImageDataModule,
        start: Start,
        device: torch.device,
        precision: str | None = None,
    ) -> None:
        accelerator = {"accelerator": device.type, "precision": precision}
        self.precision = evaluation_precision(accelerator, start.record.get("precision")) or "32-true"
        """Number format of the computation, as Lightning names it."""
        self._plugin = _plugin(self.precision, device)
        self.model: ImageClassifier = self._plugin.convert_module(model.to(device)).eval()  # type: ignore[assignment]
        """The network with its preprocessing, a LightningModule."""
        self._start = start
        self.path = start.path
        """The checkpoint."""
        self._data = data
        self._seed = int(start.config.get("seed_everything", _SEED))  # of evaluation transforms that are random
        known = [found.max_pixels for found in data.datasets.values() if found is not None]
        self._max_pixels = max([InputDataset.max_pixels, *known])  # as the run was configured
        self._pipelines = Pipelines(data.pipelines.lists, lambda: self.model.preprocessing)
        self._made: tuple[Pipeline, tuple[int, ...]] | None = None  # with the shape of an image that it was made with

    # -- what is known of it

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the probabilities."""
        return list(self.model.class_names)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.model.multilabel

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def decode(self) -> Decode:
        """How files are decoded: ``exact``, or ``scaled``; at first as ``data.decode`` of the run says."""
        return self._data.decode

    @decode.setter
    def decode(self, value: Decode) -> None:
        self._data.decode = value

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self._data.batch_size

    @cached_property
    def evaluation_steps(self) -> list[Spec]:
        """The evaluation transforms, ``class_path`` and ``init_args`` of each, in order."""
        return self._pipelines.complete_eval_specs(np.zeros(_LARGE, np.uint8))

    @property
    def datasets(self) -> dict[str, ImageDataset]:
        """The datasets of the run that are on this machine, by split."""
        return {split: data for split, data in self._data.datasets.items() if data is not None}

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels to which images are resized and cropped."""
        image = np.zeros(_LARGE, np.uint8)
        height, width, _ = self._pipelines.make("eval", image)(image, 0).shape
        return height, width

    def __repr__(self) -> str:
        height, width = self.image_size
        kind = "multi-label, " if self.multilabel else ""
        names = listed(self.class_names, _FEW)
        return (
            f"Classifier({self.model.model_name}, {len(self.class_names)} classes: {names}, {kind}{height} x {width} "
            f"pixels, {self.device}, {self.precision})"
        )

    # -- applied to images

    def predict(
        self,
        inputs: Inputs,
        tta: TTA = "none",
        progress: bool = False,
        top_k: int | None = None,
        raw: bool = False,
        risk: float | None = None,
        coverage: float | None = None,
        calibrate_on: str | os.PathLike[str] | None = None,
    ) -> pd.DataFrame:
        """Predict the classes of images, with the values that ``imgcls predict`` writes at the same batch size.

        Args:
            inputs: A path of an image, of a folder (all images below it, sorted) or of a CSV with a column ``path``; a
                uint8 array ``(H, W, 3)`` or ``(N, H, W, 3)``, RGB; a Pillow image, whose EXIF orientation is applied;
                or a list of these. The rows keep the order of the inputs.
            tta: Average the probabilities over each image and its mirror image (``hflip``), or over both and their
                upside-down versions (``flips``).
            progress: Show a progress bar.
            top_k: Columns ``top_1, top_1_probability, top_2…`` of so many classes in place of ``prob_<class>``.
            raw: Do not divide logits by the temperature that the fit has found.
            risk: The largest share of wrong predictions, at a confidence level of 95 %. Where needed for that,
                ``prediction`` is ``abstain``.
            coverage: A column ``set`` after ``probability`` contains the true class in this share of the images.
            calibrate_on: The table of an evaluation whose images these guarantees are calibrated on; None for the
                scores of the validation images in the checkpoint.

        Returns:
            One row per image with the columns of predictions.csv: ``path`` ("" for an array), ``prediction``,
            ``probability``, ``prob_<class>`` (float32) for each class, and ``error``. An image that cannot be read has
            its reason in ``error``, which is "" otherwise, and no other value (NaN). Multi-label: ``prediction`` has
            the classes above their threshold as ``cat;dog``, and ``probability`` their probabilities as ``0.9;0.7``.

        Raises:
            ConfigError: If a single path does not exist, a folder has no image, an array has another shape or dtype,
                ``tta`` is unknown, or the model has fewer than ``top_k`` classes.
            TypeError: If an input is neither path, array nor Pillow image.
        """
        if tta not in get_args(TTA):
            raise ConfigError(f"tta must be one of {', '.join(get_args(TTA))}, got {tta!r}")
        check_top_k(top_k, len(self.class_names), "top_k")
        changed = {name: value for name, value in {"tta": tta, "raw": raw}.items() if value not in ("none", False)}
        selection = find_selection(self._start, changed, risk, coverage, calibrate_on)
        data = InputDataset(inputs, self._max_pixels)
        self.model.tta, self.model.uncalibrated = tta, raw
        probs, errors = self._apply(self.model.predict_step, data, len(self.class_names), progress)
        return self._table(data, probs, errors, selection, top_k)

    def _table(
        self,
        data: InputDataset,
        probs: NDArray[np.float32],
        errors: list[str],
        selection: Selection,
        top_k: int | None,
    ) -> pd.DataFrame:
        """Return the table that ``predict`` describes."""
        found = predicted_texts(torch.from_numpy(probs), errors, self.class_names, self.model.thresholds, selection)
        probs[[bool(each.error) for each in found]] = np.nan  # outputs that are not finite
        has_sets = selection.in_set is not None
        probability = _texts(None if each.error else each.probability for each in found)
        columns = [
            _texts(data.paths),
            _texts(None if each.error else each.prediction for each in found),
            probability if self.multilabel else pd.Series(probs.max(axis=1)),
            *([_texts(None if each.error else each.label_set for each in found)] if has_sets else []),
            pd.DataFrame(probs) if top_k is None else self._top(probs, top_k),
            _texts(each.error for each in found),
        ]
        table = pd.concat(columns, axis=1)
        names = Columns(self.class_names, self.multilabel, top_k=top_k, has_sets=has_sets).names
        table.columns = pd.Index(_texts(names))
        return table

    def _top(self, probs: NDArray[np.float32], count: int) -> pd.DataFrame:
        """Return the most probable classes, each followed by its probability; empty where there is none."""
        top = top_classes(torch.from_numpy(probs), count)
        columns: list[pd.Series[Any]] = []
        for indices, values in zip(top.indices.T, top.probs.T, strict=True):
            names = (
                None if np.isnan(value) else self.class_names[at] for at, value in zip(indices, values, strict=True)
            )
            columns += [_texts(names), pd.Series(values)]
        return pd.concat(columns, axis=1)

    @overload
    def embed(
        self, inputs: Inputs, as_frame: Literal[False] = False, progress: bool = False
    ) -> NDArray[np.float32]: ...
    @overload
    def embed(self, inputs: Inputs, as_frame: Literal[True], progress: bool = False) -> pd.DataFrame: ...
    def embed(
        self, inputs: Inputs, as_frame: bool = False, progress: bool = False
    ) -> NDArray[np.float32] | pd.DataFrame:
        """Return the pooled features of images that the classification head receives.

        Args:
            inputs: As for ``predict``.
            as_frame: Return a DataFrame whose index is the path of each image.
            progress: Show a progress bar.

        Returns:
            ``(N, D)``, float32, in the order of the inputs. The row of an image that cannot be read is NaN, and a
            warning gives the reason.

        Raises:
            ConfigError: As ``predict``.
            TypeError: As ``predict``.
        """
        data = InputDataset(inputs, self._max_pixels)
        width = self.model.built().width
        features, errors = self._apply(lambda batch, _: self.model.embed(batch["image"]), data, width, progress)
        unread = [f"{path}: {error}" for path, error in zip(data.sample_paths, errors, strict=True) if error]
        if unread:
            log.warning("images that cannot be read, their features are NaN:%s", in_lines(unread))
        features[[bool(error) for error in errors]] = np.nan
        return pd.DataFrame(features, index=pd.Index(_texts(data.paths), name="path")) if as_frame else features

    def explain(self, inputs: Inputs, target: str | None = None, against: str | None = None) -> Iterator[Explanation]:
        """Show which parts of images speak for a class, on any network.

        Args:
            inputs: As for ``predict``.
            target: The class; None for the predicted one, of multi-label data the most probable one.
            against: What speaks for that class rather than for this one; None: for that class alone.

        Returns:
            The explanation of each image, in the order of the inputs, computed while iterating. That of an image that
            cannot be read has its reason in ``error``.

        Raises:
            ConfigError: As ``predict``; if the model has no such class.
            TypeError: As ``predict``.
        """
        data = InputDataset(inputs, self._max_pixels)
        question = Question.of(target, against, self.class_names)
        if not data.items:
            return iter(())
        split = Split(data, labels=None)
        pipeline, _, min_side = self._pipeline(split)
        return Explainer(self._heat_maps, split, data.paths, pipeline, self._seed, min_side, question).explain()

    @cached_property
    def _heat_maps(self) -> HeatMaps:
        return HeatMaps(self.model)

    def _apply(
        self, compute: Callable[[Batch, int], Tensor], data: InputDataset, width: int, progress: bool
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Return the output of each image, float32, and the reasons why images could not be read, else ""."""
        outputs, errors = list[NDArray[np.float32]](), list[str]()
        if not data.items:
            return np.empty((0, width), np.float32), errors
        loader = self._loader(data)
        shown = track(loader, "Images", len(loader), auto_refresh=False, transient=True, disable=not progress)
        if self.device.type == "cpu" and len(loader) > 1:
            keep_freed_memory()  # as a Trainer does: an eighth less processor time
        self.model.eval().on_predict_epoch_start()
        on_gpu = self.device.type == "cuda"
        with naming_files(), torch.inference_mode(), self._plugin.predict_step_context():
            for number, batch in enumerate(shown):
                batch["image"] = batch["image"].to(self.device, non_blocking=on_gpu)
                outputs.append(compute(batch, number).float().cpu().numpy())
                errors += batch["error"]
        return np.concatenate(outputs), errors

    def _loader(self, data: InputDataset) -> BatchLoader:
        split = Split(data, labels=None)
        pipeline, shape, min_side = self._pipeline(split)
        pins = self.device.type == "cuda"
        batches = SplitBatches(split, pipeline, "keep", pinned=pins, shape=shape, min_side=min_side)
        sampler = KeyedSampler(batches, False, self._seed)
        size = self.batch_size
        # a worker makes whole batches, so that it would not speed up a single one
        workers = min(self._data.num_workers, len(split) // size) if data.may_fork and len(split) > size else 0
        arguments = loader_arguments(batches, sampler, size, workers, self._data.timeout, pins)
        return BatchLoader(**arguments | {"persistent_workers": False})

    def _pipeline(self, split: Split) -> tuple[Pipeline, tuple[int, ...], int | None]:
        """Return the evaluation transforms, made with the first image, and the shape of an image that they accept.

        The third is the shorter side in pixels to which decoding may shrink an image; None: it is decoded exactly.
        """
        if self._made is None:
            image = example(split)
            self._made = self._pipelines.make("eval", image), image.shape
        pipeline, shape = self._made
        return pipeline, shape, needed_side(pipeline) if self.decode == "scaled" else None


def _texts(values: Iterable[str | None]) -> "pd.Series[str]":
    found = list(values)
    try:
        return pd.Series(found, dtype="str")
    except UnicodeEncodeError:  # names of files that are not UTF-8, which pyarrow 26 cannot hold
        return pd.Series(found, dtype=pd.StringDtype("python", na_value=np.nan))


def _plugin(precision: str, device: torch.device) -> Precision:
    """Return Lightning's plugin for a precision, as the Trainer of a command chooses it."""
    if precision == "32-true":
        return Precision()
    if precision == "64-true":
        return DoublePrecision()
    if precision in {"16-mixed", "bf16-mixed"}:
        return MixedPrecision(precision, device.type)  # type: ignore[arg-type]
    if precision in {"16-true", "bf16-true"}:
        return HalfPrecision(precision)  # type: ignore[arg-type]
    raise ConfigError(f"the checkpoint was trained in {precision}, which only imgcls predict supports")
